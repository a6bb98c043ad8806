//! File, flags and environment together: flag over variable (clap sees to that) over file over default.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::address::redacted;
use super::decode::{At, Decoder};
use super::environment::Folders;
use super::flags::{CommonFlags, NodeFlags};
use super::raw::{Raw, RawAmqp, RawEs, RawLimits, RawTraces};
use super::{Config, LogSettings, NodeSettings, SpanSettings, policy, routes, terms, tls};
use super::{broker, registry};
use crate::call_key::{CallKeys, SigningKey};
use crate::listener::{Network, Networks};
use crate::trace::{AmqpSettings, Message, REDACTED_HEADERS, Redact, Transport};
use crate::upstream::Policy;
use crate::{consumer, gateway, store, trace};

const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_READ_WAIT: Duration = Duration::from_secs(3); // somebody sits there and waits
const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
const DEFAULT_BODY_BYTES: u64 = 16 << 10;
/// Some 100 million usual events: a laptop's disk does not fill up.
const DEFAULT_RETAIN_BYTES: u64 = 10 << 30;
const DEFAULT_SPOOL_BYTES: u64 = 256 << 20;
/// Long enough to fill a batch under load, short enough that a user who looks at once sees the trace.
const DEFAULT_FLUSH: Duration = Duration::from_millis(100);
/// Well over what a usual request takes, well under the 10 s after which a call times out.
const DEFAULT_SLOW: Duration = Duration::from_secs(1);
const DEFAULT_RETAIN: Duration = Duration::from_secs(7 * 86_400);
/// With arrays of 256 events of 1 KiB, 64 MiB.
const DEFAULT_PREFETCH: u16 = 256;
/// Some 100,000 events of 600 bytes: seconds of Elasticsearch's work, so that it never waits for us.
const DEFAULT_CONSUMER_BYTES: usize = 128 << 20;
const DEFAULT_BATCH_EVENTS: usize = 1_000;
/// Half of what one bulk request to Elasticsearch may have.
const DEFAULT_BATCH_BYTES: usize = 4 << 20;
/// Events and bytes where the store is the embedded one: it commits once a write or two, which costs as much whatever
/// they hold. Measured CPU an event: 1,000 a write 20 µs, 4,000 15.7, 8,000 14.2, 10,000 13.9.
const EMBEDDED_BATCH: (usize, usize) = (8_000, 8 << 20);
/// One is with the store while the next is on its way.
const DEFAULT_WRITES: usize = 2;
const DEFAULT_BATCH_WAIT: Duration = Duration::from_millis(200);

/// Makes the config; faults go to the decoder.
pub(super) fn resolve(
    decoder: &mut Decoder,
    file: Option<PathBuf>,
    raw: Raw,
    common: &CommonFlags,
    node: &NodeFlags,
    folders: Folders,
) -> Config {
    let folders = Folders {
        data: common.data_dir.clone().unwrap_or(folders.data),
        runtime: common.runtime_dir.clone().unwrap_or(folders.runtime),
    };
    let asked_wait = common.registry_wait.or(raw.registry.wait);
    let registry_wait = asked_wait.unwrap_or(DEFAULT_WAIT);
    let read_wait = asked_wait.unwrap_or(DEFAULT_READ_WAIT);
    let registry = registry::resolve(decoder, raw.registry, raw.etcd_addr, raw.etcd, common, &folders);
    let Folders { data: data_dir, runtime: runtime_dir } = folders;
    let amqp = amqp(decoder, raw.amqp_addr, raw.amqp);
    let amqp_urls = amqp.as_ref().map_or(&[][..], |amqp| &amqp.urls);
    let broker = broker::resolve(decoder, raw.broker, node, amqp_urls, &registry, &runtime_dir);
    let selector = common.selector.unwrap_or_default();
    let own_zone = node.zone.as_deref().unwrap_or_default();
    raw.defaults.terms.check(decoder, &raw.defaults.ways);
    let policies = (&raw.upstreams, &raw.defaults);
    let mut routed = routes::services(&raw.routes);
    if raw.micro.is_some() {
        routed.extend(raw.upstreams.keys().cloned()); // any path may name any service
    }
    let services = policy::resolve(decoder, raw.services, routed, policies, selector, own_zone);
    let mut gateway = gateway::Settings {
        services,
        routes: Vec::new(),
        micro: None,
        call_keys: raw.call_keys.clone(),
        ways: raw.defaults.ways.clone(),
        page: terms::RawTerms::default().resolve(decoder, &terms::RawTerms::default(), &raw.defaults),
        limits: limits(&raw.limits),
        access_log: node.access_log.unwrap_or(false),
        proxy_protocol: proxy_protocol(decoder, raw.proxy_protocol, &raw.trusted_proxies),
        grpc_web: raw.grpc_web.unwrap_or(false),
        trusted_proxies: Networks(raw.trusted_proxies),
        tls: raw.tls.and_then(|tls| tls::resolve(decoder, tls)),
        usual: Policy::default(),
    };
    gateway.routes = routes::resolve(decoder, raw.routes, policies, gateway.rules());
    gateway.micro = raw.micro; // whose route is the last, whatever the others are
    gateway.trust_nodes(raw.service_tls.as_ref().and_then(|tls| tls.value.call.as_ref()));
    let retain = raw.traces.retain.unwrap_or(Some(DEFAULT_RETAIN));
    let store = if raw.es_addr.is_empty() {
        let retain_bytes = raw.traces.retain_bytes.unwrap_or(Some(DEFAULT_RETAIN_BYTES));
        store::Settings::Embedded { dir: data_dir.join("traces"), retain, retain_bytes }
    } else {
        let index = raw.es_index.unwrap_or_else(|| "trace_logs".to_owned());
        store::Settings::Elasticsearch(elasticsearch(decoder, raw.es_addr, raw.es, index, retain))
    };
    let (batch_events, batch_bytes) = match store {
        store::Settings::Embedded { .. } => EMBEDDED_BATCH,
        store::Settings::Elasticsearch(_) => (DEFAULT_BATCH_EVENTS, DEFAULT_BATCH_BYTES),
    };
    let call_keys = CallKeys::from(raw.call_keys.clone());
    let service_tls = raw.service_tls.and_then(|tls| tls::resolve(decoder, tls));
    Config {
        file,
        service_tls,
        registry,
        registry_wait,
        read_wait,
        login: raw.admin,
        trace: trace(raw.traces, amqp.clone(), raw.call_keys.first().cloned(), data_dir.join("spool")),
        store,
        consumer: consumer::Settings {
            amqp,
            prefetch: raw.consumer.prefetch.unwrap_or(DEFAULT_PREFETCH),
            max_bytes: raw.consumer.max_bytes.unwrap_or(DEFAULT_CONSUMER_BYTES),
            batch_events: raw.consumer.batch_events.unwrap_or(batch_events),
            batch_bytes: raw.consumer.batch_bytes.unwrap_or(batch_bytes),
            writes: raw.consumer.writes.unwrap_or(DEFAULT_WRITES),
            batch_wait: raw.consumer.batch_wait.unwrap_or(DEFAULT_BATCH_WAIT),
            call_keys: call_keys.clone(),
            dead_letters: Some(data_dir.join("dead-letters.jsonl")),
        },
        spans: SpanSettings {
            otlp: raw.consumer.otlp.unwrap_or_default(),
            zipkin: raw.consumer.zipkin.unwrap_or_default(),
        },
        broker,
        gateway,
        call_keys,
        selector,
        node: node_settings(node),
        data_dir,
        runtime_dir,
        up: raw.up,
        log: LogSettings {
            format: common.log_format.or(raw.log_format).unwrap_or_default(),
            verbosity: match (common.verbose, common.quiet) {
                (0, 0) => raw.log_verbosity.unwrap_or(0),
                (more, less) => (i16::from(more) - i16::from(less)).clamp(-2, 2) as i8, // in range
            },
        },
    }
}

fn proxy_protocol(decoder: &mut Decoder, raw: Option<At<bool>>, trusted: &[Network]) -> bool {
    let Some(at) = raw.filter(|at| at.value) else { return false };
    if trusted.is_empty() {
        let message = "anybody could claim to be any client; name those who may send it, for example `trustedProxies: [10.0.0.0/8]`";
        decoder.fault(&at.place, message);
    }
    true
}

fn elasticsearch(
    decoder: &mut Decoder,
    addresses: Vec<At<String>>,
    raw: RawEs,
    index: String,
    retain: Option<Duration>,
) -> store::ElasticsearchSettings {
    let at_address = addresses.iter().any(|address| address.value.contains('@'));
    let mut second = |at: &At<String>, other: &str| {
        decoder.fault(
            &at.place,
            format!("{other} is given too, and only one way to be let in can be used; leave one out"),
        );
    };
    if let Some(key) = &raw.api_key
        && (raw.user.is_some() || raw.password.is_some())
    {
        second(key, "`es.user` or `es.password`");
    }
    if let Some(at) = raw.user.as_ref().or(raw.password.as_ref()).or(raw.api_key.as_ref()).filter(|_| at_address) {
        second(at, "a user in `esAddr`");
    }
    if let Some(ca) = &raw.ca_file
        && let Some(plain) = addresses.iter().find(|address| !address.value.starts_with("https://"))
    {
        let message = format!("`{}` is without TLS; write `https://` before it", redacted(&plain.value));
        decoder.fault(&ca.place, message);
    }
    let login = match (raw.api_key, credentials(decoder, raw.user, raw.password)) {
        (Some(key), _) => Some(store::ElasticsearchLogin::ApiKey(key.value)),
        (None, Some((user, password))) => Some(store::ElasticsearchLogin::User { user, password }),
        (None, None) => None,
    };
    let mut urls: Vec<String> = Vec::new();
    for At { value, .. } in addresses {
        if !urls.contains(&value) {
            urls.push(value);
        }
    }
    store::ElasticsearchSettings { urls, login, ca_file: raw.ca_file.map(|at| at.value), index, retain }
}

/// A user and a password, or neither.
pub(super) fn credentials(
    decoder: &mut Decoder,
    user: Option<At<String>>,
    password: Option<At<String>>,
) -> Option<(String, String)> {
    match (user, password) {
        (Some(user), Some(password)) => Some((user.value, password.value)),
        (Some(user), None) => {
            decoder.fault(&user.place, "a user needs a `password` beside it");
            None
        }
        (None, Some(password)) => {
            decoder.fault(&password.place, "a password needs a `user` beside it");
            None
        }
        (None, None) => None,
    }
}

fn amqp(decoder: &mut Decoder, urls: Vec<String>, raw: RawAmqp) -> Option<AmqpSettings> {
    let exchange = raw.exchange.unwrap_or_default();
    let queue = raw.queue.unwrap_or_else(|| "trace".to_owned());
    let routing_key = match raw.routing_key {
        Some(key) if exchange.is_empty() && key.value != queue => {
            let message = format!(
                "the default exchange routes by the queue's name `{queue}`, got `{}`; leave it out, or name an `exchange`",
                key.value
            );
            decoder.fault(&key.place, message);
            key.value
        }
        Some(key) => key.value,
        None => queue.clone(),
    };
    let durable = raw.durable.unwrap_or(true);
    (!urls.is_empty()).then_some(AmqpSettings { urls, exchange, queue, routing_key, durable })
}

fn trace(raw: RawTraces, amqp: Option<AmqpSettings>, call_key: Option<String>, spool_dir: PathBuf) -> trace::Settings {
    let mut headers: Vec<String> = REDACTED_HEADERS.map(str::to_owned).to_vec();
    for name in raw.redact.headers {
        if !headers.contains(&name) {
            headers.push(name);
        }
    }
    trace::Settings {
        sample: raw.sample.unwrap_or(1.0),
        slow: raw.slow.unwrap_or(DEFAULT_SLOW),
        body_bytes: to_usize(raw.body_bytes.unwrap_or(DEFAULT_BODY_BYTES)),
        redact: Redact { headers, ..raw.redact },
        spool_bytes: raw.spool_bytes.unwrap_or(DEFAULT_SPOOL_BYTES),
        spool_dir,
        flush_interval: raw.flush_interval.unwrap_or(DEFAULT_FLUSH),
        message: raw.message.unwrap_or(Message::Batch),
        transport: match amqp {
            Some(amqp) => Transport::Amqp(amqp),
            None => Transport::Direct { call_key: SigningKey::new(call_key.as_ref()) },
        },
        otlp: None, // the environment says
    }
}

fn limits(raw: &RawLimits) -> gateway::Limits {
    let default = gateway::Limits::default();
    gateway::Limits {
        body_bytes: raw.body_bytes.map_or(default.body_bytes, to_usize),
        header_bytes: raw.header_bytes.map_or(default.header_bytes, to_usize),
        header_timeout: raw.header_timeout.unwrap_or(default.header_timeout),
        body_timeout: raw.body_timeout.unwrap_or(default.body_timeout),
        idle_timeout: raw.idle_timeout.unwrap_or(default.idle_timeout),
        send_timeout: raw.send_timeout.unwrap_or(default.send_timeout),
        connections: raw.connections.unwrap_or(default.connections),
        rpc_keepalive: raw.rpc_keepalive.unwrap_or(default.rpc_keepalive),
        in_flight: raw.in_flight.unwrap_or(default.in_flight),
    }
}

fn node_settings(flags: &NodeFlags) -> NodeSettings {
    NodeSettings {
        http_port: flags.http_port,
        https_port: None,
        https_bind: None,
        http_socket: None,
        rpc_port: flags.rpc_port,
        admin_port: flags.admin_port,
        admin_bind: flags.admin_bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        bind: flags.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        bind_given: flags.bind.is_some(),
        advertise_ip: flags.advertise_ip,
        workers: flags.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        drain_timeout: flags.drain_timeout.unwrap_or(DEFAULT_DRAIN),
        access_log: flags.access_log,
        service_name: None,
        version: flags.service_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        zone: flags.zone.clone().unwrap_or_default(),
        weight: flags.weight.unwrap_or(1),
        go_micro_protocol: flags.go_micro_protocol.unwrap_or_default(),
    }
}

/// A limit that a 32-bit machine cannot reach is none.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
