//! The keys of a config file, each read on its own. What was not written is `None` or empty; defaults come in `resolve`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::address::{self, Listen};
use super::admin;
use super::auth;
use super::broker::{self, RawBroker};
use super::decode::{At, Decoder, Field, boolean, number, size, word};
use super::flags::{LogFormat, RegistryWord, registry_word};
use super::names;
use super::policy::{self, Overrides, RawAction};
use super::routes::{self, RawRoute};
use super::terms::{self, Defaults};
use super::tls::{self, RawTls};
use super::units::{parse_duration, parse_positive_duration};
use super::up::{self, UpSettings};
use super::values::{
    body_path, es_index, header_name, parameter_name, queue_name, retain, retain_bytes, share, short_name,
};
use crate::gateway::micro::{Handler, Micro};
use crate::listener::Network;
use crate::registry::Format;
use crate::rpc::Keepalive;
use crate::trace::{Message, Redact};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) call_keys: Vec<String>,
    pub(super) etcd_addr: Vec<String>,
    pub(super) etcd: RawEtcd,
    pub(super) amqp_addr: Vec<String>,
    pub(super) es_addr: Vec<At<String>>,
    pub(super) es: RawEs,
    pub(super) es_index: Option<String>,
    pub(super) services: BTreeMap<String, BTreeMap<String, RawAction>>,
    pub(super) upstreams: BTreeMap<String, At<Overrides>>,
    pub(super) routes: Vec<At<RawRoute>>,
    pub(super) defaults: Defaults,
    pub(super) amqp: RawAmqp,
    pub(super) broker: RawBroker,
    pub(super) traces: RawTraces,
    pub(super) consumer: RawConsumer,
    pub(super) limits: RawLimits,
    pub(super) tls: Option<At<RawTls>>,
    pub(super) service_tls: Option<At<RawTls>>,
    pub(super) trusted_proxies: Vec<Network>,
    pub(super) proxy_protocol: Option<At<bool>>,
    pub(super) admin: crate::dashboard::Login,
    pub(super) grpc_web: Option<bool>,
    pub(super) registry: RawRegistry,
    pub(super) micro: Option<Micro>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_verbosity: Option<i8>,
    pub(super) up: UpSettings,
}

#[derive(Debug, Default)]
pub(super) struct RawEtcd {
    pub(super) user: Option<At<String>>,
    pub(super) password: Option<At<String>>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<At<PathBuf>>,
    pub(super) key_file: Option<At<PathBuf>>,
}

#[derive(Debug, Default)]
pub(super) struct RawEs {
    pub(super) user: Option<At<String>>,
    pub(super) password: Option<At<String>>,
    pub(super) api_key: Option<At<String>>,
    pub(super) ca_file: Option<At<PathBuf>>,
}

#[derive(Debug, Default)]
pub(super) struct RawAmqp {
    pub(super) exchange: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) routing_key: Option<At<String>>,
    pub(super) durable: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct RawTraces {
    pub(super) message: Option<Message>,
    pub(super) sample: Option<f64>,
    pub(super) slow: Option<Duration>,
    pub(super) body_bytes: Option<u64>,
    pub(super) redact: Redact,
    pub(super) spool_bytes: Option<u64>,
    pub(super) flush_interval: Option<Duration>,
    /// `Some(None)`: for ever.
    pub(super) retain: Option<Option<Duration>>,
    /// `Some(None)`: as many as come.
    pub(super) retain_bytes: Option<Option<u64>>,
}

#[derive(Debug, Default)]
pub(super) struct RawConsumer {
    pub(super) prefetch: Option<u16>,
    pub(super) max_bytes: Option<usize>,
    pub(super) batch_events: Option<usize>,
    pub(super) batch_bytes: Option<usize>,
    pub(super) writes: Option<usize>,
    pub(super) batch_wait: Option<Duration>,
    pub(super) otlp: Option<Listen>,
    pub(super) zipkin: Option<Listen>,
}

#[derive(Debug, Default)]
pub(super) struct RawLimits {
    pub(super) body_bytes: Option<u64>,
    pub(super) header_bytes: Option<u64>,
    pub(super) header_timeout: Option<Duration>,
    pub(super) body_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    pub(super) connections: Option<usize>,
    pub(super) rpc_keepalive: Option<Option<Keepalive>>,
    pub(super) in_flight: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct RawRegistry {
    pub(super) kind: Option<At<RegistryWord>>,
    pub(super) address: Option<At<String>>,
    pub(super) token: Option<At<String>>,
    pub(super) ca_file: Option<At<String>>,
    pub(super) namespace: Option<String>,
    pub(super) ttl: Option<At<Duration>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) format: Option<Format>,
    pub(super) grace: Option<Duration>,
    pub(super) wait: Option<Duration>,
    pub(super) remember: Option<Duration>,
}

/// More connections or requests at once than a process can have.
const MOST_AT_ONCE: usize = 10_000_000;
/// actix-http reads heads of up to 128 KiB, the request's line and what stands between names and values included.
const MOST_HEADER_BYTES: u64 = 112 << 10;
/// A consumer, the spool and RabbitMQ (by default) take 16 MiB at once. Text that is no JSON may take six bytes for one
/// in an event, and a batch is up to 1 MiB before its last event.
const MOST_TRACED_BODY: u64 = 1 << 20;
/// A spool smaller than this could not hold one batch.
const LEAST_SPOOL: u64 = 1 << 20;
/// A message of RabbitMQ holds at most 256 events; a bulk write of more than this would be refused by size.
const MOST_BATCH_EVENTS: usize = 100_000;
/// A body of 16 MiB that a sender may bring at once must find room in half of it.
const LEAST_CONSUMER_BYTES: u64 = 64 << 20;
/// More than this in one write would be refused by size.
const MOST_BATCH_BYTES: u64 = 64 << 20;
/// A store does not work on more at once to any use.
const MOST_WRITES: usize = 64;

impl Decoder {
    /// Reads the whole file.
    pub(super) fn file(&mut self, root: &Field<'_>) -> Raw {
        let known = [
            "callServiceKey",
            "etcdAddr",
            "etcd",
            "amqpAddr",
            "esAddr",
            "es",
            "esIndex",
            "services",
            "upstreams",
            "routes",
            "auth",
            "defaults",
            "amqp",
            "broker",
            "traces",
            "consumer",
            "limits",
            "tls",
            "serviceTls",
            "trustedProxies",
            "proxyProtocol",
            "grpcWeb",
            "micro",
            "admin",
            "registry",
            "log",
            "up",
        ];
        let table = self.table(root, &known);
        let mut raw = Raw::default();
        if let Some(field) = table.get("callServiceKey") {
            raw.call_keys = self.call_keys(&field);
        }
        if let Some(field) = table.get("etcdAddr") {
            for field in self.list(&field) {
                raw.etcd_addr
                    .extend(self.read(&field, address::etcd_list).iter().flat_map(|list| list.iter().cloned()));
            }
        }
        if let Some(field) = table.get("amqpAddr") {
            let list = self.list(&field);
            raw.amqp_addr = list.iter().filter_map(|field| self.read(field, address::amqp)).collect();
        }
        if let Some(field) = table.get("esAddr") {
            for field in self.list(&field) {
                let list = self.read(&field, address::elasticsearch_list).unwrap_or_default();
                raw.es_addr.extend(list.into_iter().map(|value| At { value, place: field.place.clone() }));
            }
        }
        raw.es = table.get("es").map(|field| self.es(&field)).unwrap_or_default();
        raw.es_index = table.get("esIndex").and_then(|field| self.read(&field, es_index));
        if let Some(field) = table.get("services") {
            raw.services = policy::services(self, &field);
        }
        if let Some(field) = table.get("upstreams") {
            raw.upstreams = policy::upstreams(self, &field);
        }
        raw.routes = table.get("routes").map(|field| routes::read(self, &field)).unwrap_or_default();
        raw.defaults = Defaults {
            terms: table.get("defaults").map(|field| terms::defaults(self, &field)).unwrap_or_default(),
            ways: table.get("auth").map(|field| auth::read(self, &field)).unwrap_or_default(),
        };
        raw.etcd = table.get("etcd").map(|field| self.etcd(&field)).unwrap_or_default();
        raw.amqp = table.get("amqp").map(|field| self.amqp(&field)).unwrap_or_default();
        raw.broker = table.get("broker").map(|field| broker::read(self, &field)).unwrap_or_default();
        raw.traces = table.get("traces").map(|field| self.traces(&field)).unwrap_or_default();
        raw.consumer = table.get("consumer").map(|field| self.consumer(&field)).unwrap_or_default();
        raw.limits = table.get("limits").map(|field| self.limits(&field)).unwrap_or_default();
        raw.tls = table.get("tls").map(|field| tls::read(self, &field, tls::KEYS));
        raw.service_tls = table.get("serviceTls").map(|field| tls::read(self, &field, tls::SERVICE_KEYS));
        raw.trusted_proxies = self.each(table.get("trustedProxies"), Network::parse);
        let switch = word("word", &[("on", true), ("off", false), ("true", true), ("false", false)]);
        raw.proxy_protocol = table.get("proxyProtocol").and_then(|field| self.read_at(&field, &switch));
        raw.grpc_web = table.get("grpcWeb").and_then(|field| self.read(&field, &switch));
        raw.micro = table.get("micro").and_then(|field| self.micro(&field));
        raw.admin = table.get("admin").map(|field| admin::read(self, &field)).unwrap_or_default();
        raw.registry = table.get("registry").map(|field| self.registry(&field)).unwrap_or_default();
        if let Some(field) = table.get("log") {
            let log = self.table(&field, &["format", "level"]);
            let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
            raw.log_format = log.get("format").and_then(|field| self.read(&field, word("log format", formats)));
            raw.log_verbosity = log.get("level").and_then(|field| self.read(&field, word("log level", &LEVELS)));
        }
        raw.up = table.get("up").map(|field| up::read(self, &field)).unwrap_or_default();
        raw
    }

    fn call_keys(&mut self, field: &Field<'_>) -> Vec<String> {
        let mut keys = Vec::new();
        for field in self.list(field) {
            let Some(key) = self.some_text(&field) else { continue };
            // It travels as a header's value.
            if key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && key.trim() == key {
                keys.push(key);
            } else {
                self.fault(&field.place, "must be printable ASCII without spaces around it, as it travels in a header");
            }
        }
        keys
    }

    fn etcd(&mut self, field: &Field<'_>) -> RawEtcd {
        let table = self.table(field, &["user", "password", "caFile", "certFile", "keyFile"]);
        let mut text = |key| {
            let field = table.get(key)?;
            self.some_text(&field).map(|value| At { value, place: field.place.clone() })
        };
        let path = |at: At<String>| At { value: PathBuf::from(at.value), place: at.place };
        RawEtcd {
            user: text("user"),
            password: text("password"),
            ca_file: text("caFile").map(|at| at.value.into()),
            cert_file: text("certFile").map(path),
            key_file: text("keyFile").map(path),
        }
    }

    fn es(&mut self, field: &Field<'_>) -> RawEs {
        let table = self.table(field, &["user", "password", "apiKey", "caFile"]);
        let mut text = |key| {
            let field = table.get(key)?;
            self.some_text(&field).map(|value| At { value, place: field.place.clone() })
        };
        let (user, password, api_key) = (text("user"), text("password"), text("apiKey"));
        let ca_file = text("caFile").map(|at| At { value: PathBuf::from(at.value), place: at.place });
        // it travels as it is in a header
        if let Some(key) = api_key.as_ref().filter(|key| !key.value.bytes().all(|byte| byte.is_ascii_graphic())) {
            self.fault(&key.place, "is no API key; write it as Elasticsearch encodes it, or as `id:secret`");
        }
        RawEs { user, password, api_key, ca_file }
    }

    fn amqp(&mut self, field: &Field<'_>) -> RawAmqp {
        let table = self.table(field, &["exchange", "queue", "routingKey", "durable"]);
        RawAmqp {
            exchange: table.get("exchange").and_then(|field| self.read(&field, short_name)),
            queue: table.get("queue").and_then(|field| self.read(&field, queue_name)),
            routing_key: table.get("routingKey").and_then(|field| self.read_at(&field, short_name)),
            durable: table.get("durable").and_then(|field| self.read(&field, boolean)),
        }
    }

    fn traces(&mut self, field: &Field<'_>) -> RawTraces {
        let known = [
            "message",
            "sample",
            "slow",
            "bodyBytes",
            "redact",
            "spoolBytes",
            "flushInterval",
            "retain",
            "retainBytes",
        ];
        let table = self.table(field, &known);
        let messages = &[("batch", Message::Batch), ("single", Message::Single)];
        RawTraces {
            message: table.get("message").and_then(|field| self.read(&field, word("word", messages))),
            sample: table.get("sample").and_then(|field| self.read(&field, share)),
            slow: table.get("slow").and_then(|field| self.read(&field, parse_positive_duration)),
            body_bytes: table.get("bodyBytes").and_then(|field| self.read(&field, size(0, MOST_TRACED_BODY))),
            redact: table.get("redact").map(|field| self.redact(&field)).unwrap_or_default(),
            spool_bytes: table.get("spoolBytes").and_then(|field| self.read(&field, size(LEAST_SPOOL, u64::MAX))),
            flush_interval: table.get("flushInterval").and_then(|field| self.read(&field, parse_positive_duration)),
            retain: table.get("retain").and_then(|field| self.read(&field, retain)),
            retain_bytes: table.get("retainBytes").and_then(|field| self.read(&field, retain_bytes)),
        }
    }

    /// A list is one of headers.
    fn redact(&mut self, field: &Field<'_>) -> Redact {
        if !field.is_table() {
            return Redact { headers: self.each(Some(field.clone()), header_name), ..Redact::default() };
        }
        let table = self.table(field, &["headers", "query", "body"]);
        Redact {
            headers: self.each(table.get("headers"), header_name),
            query: self.each(table.get("query"), parameter_name),
            body: self.each(table.get("body"), body_path),
        }
    }

    fn each<T>(&mut self, field: Option<Field<'_>>, parse: fn(&str) -> Result<T, String>) -> Vec<T> {
        let list = field.map(|field| self.list(&field)).unwrap_or_default();
        list.iter().filter_map(|field| self.read(field, parse)).collect()
    }

    fn consumer(&mut self, field: &Field<'_>) -> RawConsumer {
        let known = ["prefetch", "maxBytes", "batchEvents", "batchBytes", "batchWait", "writes", "otlp", "zipkin"];
        let table = self.table(field, &known);
        let mut bytes = |key, least, most| {
            let size = table.get(key).and_then(|field| self.read(&field, size(least, most)));
            size.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        let (max_bytes, batch_bytes) =
            (bytes("maxBytes", LEAST_CONSUMER_BYTES, u64::MAX), bytes("batchBytes", 1, MOST_BATCH_BYTES));
        RawConsumer {
            max_bytes,
            batch_bytes,
            writes: table.get("writes").and_then(|field| self.read(&field, number(1, MOST_WRITES))),
            prefetch: table.get("prefetch").and_then(|field| self.read(&field, number(1, u16::MAX))),
            batch_events: table.get("batchEvents").and_then(|field| self.read(&field, number(1, MOST_BATCH_EVENTS))),
            batch_wait: table.get("batchWait").and_then(|field| self.read(&field, parse_duration)),
            otlp: table.get("otlp").and_then(|field| self.read(&field, address::listen)),
            zipkin: table.get("zipkin").and_then(|field| self.read(&field, address::listen)),
        }
    }

    fn limits(&mut self, field: &Field<'_>) -> RawLimits {
        let known = [
            "bodyBytes",
            "headerBytes",
            "headerTimeout",
            "bodyTimeout",
            "idleTimeout",
            "sendTimeout",
            "connections",
            "rpcKeepalive",
            "inFlight",
        ];
        let table = self.table(field, &known);
        let mut duration = |key| table.get(key).and_then(|field| self.read(&field, parse_positive_duration));
        let (header_timeout, body_timeout) = (duration("headerTimeout"), duration("bodyTimeout"));
        let (idle_timeout, send_timeout) = (duration("idleTimeout"), duration("sendTimeout"));
        RawLimits {
            body_bytes: table.get("bodyBytes").and_then(|field| self.read(&field, size(1, u64::MAX))),
            header_bytes: table.get("headerBytes").and_then(|field| self.read(&field, size(1, MOST_HEADER_BYTES))),
            header_timeout,
            body_timeout,
            idle_timeout,
            send_timeout,
            rpc_keepalive: table.get("rpcKeepalive").and_then(|field| policy::keepalive(self, &field)),
            connections: table.get("connections").and_then(|field| self.read(&field, number(1, MOST_AT_ONCE))),
            in_flight: table.get("inFlight").and_then(|field| self.read(&field, number(1, MOST_AT_ONCE))),
        }
    }

    fn micro(&mut self, field: &Field<'_>) -> Option<Micro> {
        let table = self.table(field, &["handler", "namespace"]);
        let namespace = table.get("namespace").and_then(|field| self.read(&field, names::micro_namespace));
        let handler = table.get("handler").map(|field| self.read(&field, names::handler));
        let namespace = namespace.unwrap_or_else(|| super::MICRO_NAMESPACE.to_owned());
        Some(Micro::new(handler.unwrap_or(Some(Handler::default()))?, &namespace))
    }

    fn registry(&mut self, field: &Field<'_>) -> RawRegistry {
        let keys = [
            "kind",
            "address",
            "token",
            "caFile",
            "namespace",
            "ttl",
            "interval",
            "format",
            "grace",
            "wait",
            "remember",
        ];
        let table = self.table(field, &keys);
        let mut text = |key| {
            let field = table.get(key)?;
            self.some_text(&field).map(|value| At { value, place: field.place.clone() })
        };
        let (address, token, ca_file) = (text("address"), text("token"), text("caFile"));
        RawRegistry {
            address,
            token,
            ca_file,
            kind: table.get("kind").and_then(|field| self.read_at(&field, registry_word)),
            namespace: table.get("namespace").and_then(|field| self.read(&field, names::namespace)),
            ttl: table.get("ttl").and_then(|field| self.read_at(&field, parse_positive_duration)),
            interval: table.get("interval").and_then(|field| self.read_at(&field, parse_positive_duration)),
            format: table.get("format").and_then(|field| self.read(&field, names::registry_format)),
            grace: table.get("grace").and_then(|field| self.read(&field, parse_duration)),
            wait: table.get("wait").and_then(|field| self.read(&field, parse_duration)),
            remember: table.get("remember").and_then(|field| self.read(&field, parse_duration)),
        }
    }
}

/// Log levels as steps from info.
pub(super) const LEVELS: [(&str, i8); 5] = [("error", -2), ("warn", -1), ("info", 0), ("debug", 1), ("trace", 2)];
