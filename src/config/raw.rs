//! The keys of a config file, each read on its own. What was not written is `None` or empty; defaults come in `resolve`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::address::{self, Listen};
use super::admin;
use super::auth;
use super::broker::{self, RawBroker};
use super::decode::{At, Decoder, Field, word};
use super::flags::{LogFormat, RegistryWord};
use super::policy::{self, Overrides, RawAction};
use super::routes::{self, RawRoute};
use super::terms::{self, Defaults};
use super::tls::{self, RawTls};
use super::up::{self, UpSettings};
use super::values::es_index;
use crate::gateway::micro::Micro;
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
    pub(super) pods: Option<At<String>>,
    pub(super) selector: Option<At<String>>,
    pub(super) namespace: Option<String>,
    pub(super) ttl: Option<At<Duration>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) format: Option<Format>,
    pub(super) grace: Option<Duration>,
    pub(super) wait: Option<Duration>,
    pub(super) remember: Option<Duration>,
}

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
}

/// Log levels as steps from info.
pub(super) const LEVELS: [(&str, i8); 5] = [("error", -2), ("warn", -1), ("info", 0), ("debug", 1), ("trace", 2)];
