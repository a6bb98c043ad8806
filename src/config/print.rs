//! The config as YAML that could be loaded again, without secrets.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::address::redacted;
use super::names::FORMATS;
use super::print_routes::{actions, keepalive, route, shown_micro};
use super::print_terms;
use super::raw::LEVELS;
use super::units::format_duration;
use super::{Config, LogFormat, UpSettings};
use super::{admin, broker, tls, up, upstream};
use crate::registry::Backend;
use crate::store;
use crate::trace::Message;

/// What stands for a secret.
pub(super) const REDACTED: &str = "redacted";

/// What a running gateway follows.
const FOLLOWED: &[&str] = &[
    "services",
    "upstreams",
    "routes",
    "auth",
    "callServiceKey",
    "limits",
    "tls",
    "trustedProxies",
    "proxyProtocol",
    "grpcWeb",
    "defaults",
    "admin",
];
/// What a running service follows, or has no use for.
const NOT_OF_A_SERVICE: &[&str] = &[
    "routes",
    "auth",
    "callServiceKey",
    "tls",
    "trustedProxies",
    "proxyProtocol",
    "grpcWeb",
    "micro",
    "defaults",
    "admin",
    "up",
];

impl Config {
    /// The resulting config as YAML, every key with its value, secrets as `redacted`. What only flags set stands in
    /// comments.
    ///
    /// # Errors
    /// None is known; what the YAML writer says.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        Ok(self.head() + &serde_yaml::to_string(&self.mapping())?)
    }

    /// What another config says otherwise that a running gateway does not follow: the keys. Secrets are not compared.
    #[must_use]
    pub fn differences_that_need_a_restart(&self, other: &Self) -> Vec<String> {
        let limits = self.gateway.needs_restart(&other.gateway);
        self.differences(other, FOLLOWED).into_iter().chain(limits.into_iter().map(str::to_owned)).collect()
    }

    /// The same of a process without a gateway, to which what is a gateway's alone means nothing.
    #[must_use]
    pub fn differences_that_need_a_restart_of_a_service(&self, other: &Self) -> Vec<String> {
        self.differences(other, NOT_OF_A_SERVICE)
    }

    fn differences(&self, other: &Self, but_for: &[&str]) -> Vec<String> {
        let (mut one, mut two) = (self.mapping(), other.mapping());
        // a trace pipeline is there from the start or never
        if (self.trace.sample <= 0.0) == (other.trace.sample <= 0.0) {
            leave_out(&mut one, &mut two, "traces", "sample");
        }
        leave_out(&mut one, &mut two, "log", "level");
        let differs = |key: &&Value| one.get(*key) != two.get(*key);
        let keys = one.keys().chain(two.keys().filter(|key| !one.contains_key(*key)));
        let keys = keys.filter(differs).filter_map(Value::as_str).filter(|key| !but_for.contains(key));
        // a running process takes other keys, but never none: its guard would be off
        let loses_keys = !self.call_keys.is_empty() && other.call_keys.is_empty();
        keys.chain(loses_keys.then_some("callServiceKey")).map(str::to_owned).collect()
    }

    pub(super) fn mapping(&self) -> Mapping {
        let mut root = Mapping::new();
        match self.call_keys.len() {
            0 => {}
            1 => put(&mut root, "callServiceKey", REDACTED),
            keys => put(&mut root, "callServiceKey", vec![Value::from(REDACTED); keys]),
        }
        self.put_servers(&mut root);
        if !self.gateway.ways.is_empty() {
            put(&mut root, "auth", print_terms::ways(&self.gateway.ways));
        }
        let page = &self.gateway.page;
        let defaults = print_terms::defaults(page);
        if !defaults.is_empty() {
            put(&mut root, "defaults", defaults);
        }
        let services = &self.gateway.services;
        put(&mut root, "services", named(services.iter().map(|(name, service)| (name, actions(service, page)))));
        put(
            &mut root,
            "upstreams",
            named(services.iter().map(|(name, service)| {
                let mut shown = upstream::shown(&service.balance);
                upstream::put_health(&mut shown, service.health.as_ref());
                (name, shown)
            })),
        );
        if !self.gateway.routes.is_empty() {
            put(
                &mut root,
                "routes",
                self.gateway.routes.iter().map(|rule| Value::from(route(rule, page))).collect::<Vec<_>>(),
            );
        }
        self.put_traces(&mut root);
        self.put_rest(&mut root);
        root
    }

    fn head(&self) -> String {
        let node = &self.node;
        let port = |port: Option<u16>| port.map_or_else(|| "default".to_owned(), |port| port.to_string());
        let ip = node.advertise_ip.map_or_else(|| "found by the route".to_owned(), |ip| ip.to_string());
        let file = self.file.as_ref().map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
        let otlp = self.trace.otlp.as_ref().map_or_else(String::new, |otlp| {
            let names: Vec<&str> = otlp.headers.iter().map(|(name, _)| name.as_str()).collect();
            let headers = if names.is_empty() { String::new() } else { format!(" (headers: {})", names.join(", ")) };
            format!("# spans go to: {}{headers}\n", otlp.place())
        });
        format!(
            "# config: {file}\n# data dir: {}\n# runtime dir: {}\n# ports: http {}, {}rpc {}, admin {}\n\
             # bind: {} (admin: {}), advertised: {ip}\n# workers: {}, drain timeout: {}\n{otlp}",
            self.data_dir.display(),
            self.runtime_dir.display(),
            port(node.http_port),
            self.doors(),
            port(node.rpc_port),
            port(node.admin_port),
            node.bind,
            node.admin_bind,
            node.workers,
            format_duration(node.drain_timeout),
        )
    }

    /// A gateway's doors besides.
    fn doors(&self) -> String {
        let node = &self.node;
        let https = self.gateway.tls.as_ref().map(|_| {
            let port = node.https_port.map_or_else(|| "default".to_owned(), |port| port.to_string());
            match node.https_bind {
                Some(ip) => format!("https {port} of {ip}, "),
                None => format!("https {port}, "),
            }
        });
        let socket = node.http_socket.as_ref().map(|file| format!("http socket {}, ", file.display()));
        https.unwrap_or_default() + &socket.unwrap_or_default()
    }

    fn put_servers(&self, root: &mut Mapping) {
        if let Backend::Etcd(settings) = &self.registry.backend {
            put(root, "etcdAddr", texts(settings.endpoints.iter()));
            let mut etcd = Mapping::new();
            if let Some((user, _)) = &settings.credentials {
                put(&mut etcd, "user", user.as_str());
                put(&mut etcd, "password", REDACTED);
            }
            if let Some(ca) = &settings.ca_file {
                put(&mut etcd, "caFile", ca.display().to_string());
            }
            if let Some((cert, key)) = &settings.identity_files {
                put(&mut etcd, "certFile", cert.display().to_string());
                put(&mut etcd, "keyFile", key.display().to_string());
            }
            if !etcd.is_empty() {
                put(root, "etcd", etcd);
            }
        }
        if let Some(settings) = &self.consumer.amqp {
            put(root, "amqpAddr", texts(settings.urls.iter().map(|url| redacted(url))));
            let mut amqp = Mapping::new();
            put(&mut amqp, "exchange", settings.exchange.as_str());
            put(&mut amqp, "queue", settings.queue.as_str());
            put(&mut amqp, "routingKey", settings.routing_key.as_str());
            put(&mut amqp, "durable", settings.durable);
            put(root, "amqp", amqp);
        }
        if let store::Settings::Elasticsearch(settings) = &self.store {
            put(root, "esAddr", texts(settings.urls.iter().map(|url| redacted(url))));
            let mut es = Mapping::new();
            match &settings.login {
                Some(store::ElasticsearchLogin::User { user, .. }) => {
                    put(&mut es, "user", user.as_str());
                    put(&mut es, "password", REDACTED);
                }
                Some(store::ElasticsearchLogin::ApiKey(_)) => put(&mut es, "apiKey", REDACTED),
                None => {}
            }
            if let Some(ca) = &settings.ca_file {
                put(&mut es, "caFile", ca.display().to_string());
            }
            if !es.is_empty() {
                put(root, "es", es);
            }
            put(root, "esIndex", settings.index.as_str());
        }
    }

    fn put_traces(&self, root: &mut Mapping) {
        let settings = &self.trace;
        let mut traces = Mapping::new();
        put(&mut traces, "message", if settings.message == Message::Single { "single" } else { "batch" });
        put(&mut traces, "sample", settings.sample);
        put(&mut traces, "slow", duration(settings.slow));
        put(&mut traces, "bodyBytes", settings.body_bytes);
        let mut redact = Mapping::new();
        put(&mut redact, "headers", texts(settings.redact.headers.iter()));
        put(&mut redact, "query", texts(settings.redact.query.iter()));
        put(&mut redact, "body", texts(settings.redact.body.iter()));
        put(&mut traces, "redact", redact);
        put(&mut traces, "spoolBytes", settings.spool_bytes);
        put(&mut traces, "flushInterval", duration(settings.flush_interval));
        let retain = match &self.store {
            store::Settings::Embedded { retain, .. } => retain,
            store::Settings::Elasticsearch(settings) => &settings.retain,
        };
        put(&mut traces, "retain", retain.map_or_else(|| "forever".to_owned(), duration));
        if let store::Settings::Embedded { retain_bytes, .. } = &self.store {
            let bytes = retain_bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
            put(&mut traces, "retainBytes", bytes);
        }
        put(root, "traces", traces);
        let mut consumer = Mapping::new();
        put(&mut consumer, "prefetch", self.consumer.prefetch);
        put(&mut consumer, "maxBytes", self.consumer.max_bytes);
        put(&mut consumer, "batchEvents", self.consumer.batch_events);
        put(&mut consumer, "batchBytes", self.consumer.batch_bytes);
        put(&mut consumer, "batchWait", duration(self.consumer.batch_wait));
        put(&mut consumer, "writes", self.consumer.writes);
        for (key, listen) in [("otlp", self.spans.otlp), ("zipkin", self.spans.zipkin)] {
            put(&mut consumer, key, listen.to_string());
        }
        put(root, "consumer", consumer);
    }

    fn put_rest(&self, root: &mut Mapping) {
        let settings = &self.gateway.limits;
        let mut limits = Mapping::new();
        put(&mut limits, "bodyBytes", settings.body_bytes);
        put(&mut limits, "headerBytes", settings.header_bytes);
        put(&mut limits, "headerTimeout", duration(settings.header_timeout));
        put(&mut limits, "bodyTimeout", duration(settings.body_timeout));
        put(&mut limits, "idleTimeout", duration(settings.idle_timeout));
        put(&mut limits, "sendTimeout", duration(settings.send_timeout));
        put(&mut limits, "connections", settings.connections);
        put(&mut limits, "rpcKeepalive", keepalive(settings.rpc_keepalive));
        put(&mut limits, "inFlight", settings.in_flight);
        put(root, "limits", limits);
        if let Some(settings) = &self.gateway.tls {
            put(root, "tls", tls::shown(settings, tls::KEYS));
        }
        let call = self.gateway.usual.told_tls.as_deref();
        if let Some(shown) = tls::shown_service(self.service_tls.as_ref(), call) {
            put(root, "serviceTls", shown);
        }
        put(root, "trustedProxies", texts(self.gateway.trusted_proxies.0.iter()));
        put(root, "proxyProtocol", if self.gateway.proxy_protocol { "on" } else { "off" });
        put(root, "grpcWeb", if self.gateway.grpc_web { "on" } else { "off" });
        if let Some(micro) = &self.gateway.micro {
            put(root, "micro", shown_micro(micro));
        }
        let settings = &self.registry;
        let mut registry = Mapping::new();
        put(&mut registry, "kind", settings.backend.kind());
        match &settings.backend {
            Backend::Static { file } => put(&mut registry, "address", file.display().to_string()),
            Backend::Consul(consul) => {
                put_server(&mut registry, &consul.address, consul.token.is_some(), consul.ca_file.as_deref());
            }
            Backend::Kubernetes(kubernetes) => {
                let has_token = kubernetes.token.is_some();
                put_server(&mut registry, &kubernetes.address, has_token, kubernetes.ca_file.as_deref());
                put(&mut registry, "pods", kubernetes.pods.as_str());
                put(&mut registry, "selector", kubernetes.selector.as_str());
            }
            _ => {}
        }
        put(&mut registry, "namespace", settings.namespace.as_str());
        put(&mut registry, "ttl", duration(settings.register_ttl));
        put(&mut registry, "interval", duration(settings.register_interval));
        let word = FORMATS.iter().find(|(_, format)| *format == settings.format);
        put(&mut registry, "format", word.map_or("goms", |(word, _)| *word));
        put(&mut registry, "grace", duration(settings.grace));
        put(&mut registry, "wait", duration(self.registry_wait));
        let age = settings.remember.as_ref().map_or(Duration::ZERO, |remember| remember.age);
        put(&mut registry, "remember", duration(age));
        put(root, "registry", registry);
        if let Some(admin) = admin::shown(&self.login) {
            put(root, "admin", admin);
        }
        let mut log = Mapping::new();
        put(&mut log, "format", if self.log.format == LogFormat::Json { "json" } else { "text" });
        put(&mut log, "level", name_of(&LEVELS, self.log.verbosity));
        put(root, "broker", broker::shown(&self.broker));
        put(root, "log", log);
        if self.up != UpSettings::default() {
            put(root, "up", up::shown(&self.up));
        }
    }
}

/// A registry's server, without what lets us in.
fn put_server(registry: &mut Mapping, address: &str, has_token: bool, ca_file: Option<&Path>) {
    put(registry, "address", address);
    if has_token {
        put(registry, "token", REDACTED);
    }
    if let Some(ca) = ca_file {
        put(registry, "caFile", ca.display().to_string());
    }
}

pub(super) fn put(mapping: &mut Mapping, key: &str, value: impl Into<Value>) {
    mapping.insert(Value::from(key), value.into());
}

pub(super) fn named<'a>(entries: impl Iterator<Item = (&'a String, Mapping)>) -> Mapping {
    entries.map(|(name, mapping)| (Value::from(name.as_str()), Value::from(mapping))).collect()
}

pub(super) fn texts(list: impl Iterator<Item = impl Display>) -> Vec<Value> {
    list.map(|text| Value::from(text.to_string())).collect()
}

pub(super) fn duration(duration: Duration) -> String {
    format_duration(duration)
}

fn leave_out(one: &mut Mapping, two: &mut Mapping, section: &str, key: &str) {
    for mapping in [one, two] {
        if let Some(Value::Mapping(section)) = mapping.get_mut(section) {
            section.remove(key);
        }
    }
}

pub(super) fn name_of<T: PartialEq>(words: &'static [(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}
