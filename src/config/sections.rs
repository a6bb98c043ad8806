//! The tables of a config file that are read on their own, key by key.

use std::path::PathBuf;

use super::address;
use super::decode::{At, Decoder, Field, boolean, number, size, word};
use super::flags::registry_word;
use super::names;
use super::policy;
use super::raw::{RawAmqp, RawConsumer, RawEs, RawEtcd, RawLimits, RawRegistry, RawTraces};
use super::units::{parse_duration, parse_positive_duration};
use super::values::{body_path, header_name, parameter_name, queue_name, retain, retain_bytes, share, short_name};
use crate::gateway::micro::{Handler, Micro};
use crate::trace::{Message, Redact};

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
    pub(super) fn etcd(&mut self, field: &Field<'_>) -> RawEtcd {
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

    pub(super) fn es(&mut self, field: &Field<'_>) -> RawEs {
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

    pub(super) fn amqp(&mut self, field: &Field<'_>) -> RawAmqp {
        let table = self.table(field, &["exchange", "queue", "routingKey", "durable"]);
        RawAmqp {
            exchange: table.get("exchange").and_then(|field| self.read(&field, short_name)),
            queue: table.get("queue").and_then(|field| self.read(&field, queue_name)),
            routing_key: table.get("routingKey").and_then(|field| self.read_at(&field, short_name)),
            durable: table.get("durable").and_then(|field| self.read(&field, boolean)),
        }
    }

    pub(super) fn traces(&mut self, field: &Field<'_>) -> RawTraces {
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

    pub(super) fn each<T>(&mut self, field: Option<Field<'_>>, parse: fn(&str) -> Result<T, String>) -> Vec<T> {
        let list = field.map(|field| self.list(&field)).unwrap_or_default();
        list.iter().filter_map(|field| self.read(field, parse)).collect()
    }

    pub(super) fn consumer(&mut self, field: &Field<'_>) -> RawConsumer {
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

    pub(super) fn limits(&mut self, field: &Field<'_>) -> RawLimits {
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

    pub(super) fn micro(&mut self, field: &Field<'_>) -> Option<Micro> {
        let table = self.table(field, &["handler", "namespace"]);
        let namespace = table.get("namespace").and_then(|field| self.read(&field, names::micro_namespace));
        let handler = table.get("handler").map(|field| self.read(&field, names::handler));
        let namespace = namespace.unwrap_or_else(|| super::MICRO_NAMESPACE.to_owned());
        Some(Micro::new(handler.unwrap_or(Some(Handler::default()))?, &namespace))
    }

    pub(super) fn registry(&mut self, field: &Field<'_>) -> RawRegistry {
        let keys = [
            "kind",
            "address",
            "token",
            "caFile",
            "pods",
            "selector",
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
        let (pods, selector) = (text("pods"), text("selector"));
        RawRegistry {
            pods,
            selector,
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
