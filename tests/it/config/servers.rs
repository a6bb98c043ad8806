//! Which servers a config names, and what holds where it names none; flags over the file.

use std::path::Path;
use std::time::Duration;

use goms::cli;
use goms::config::Config;
use goms::registry::Backend;
use goms::store;
use goms::trace::{Message, Transport};

use super::load;

#[test]
fn nothing_named_is_embedded() {
    let config = load("", &["--data-dir", "/d", "--runtime-dir", "/r"]).expect("good");
    assert!(matches!(&config.registry.backend, Backend::Local { dir } if dir == Path::new("/r")));
    assert!(matches!(&config.trace.transport, Transport::Direct { call_key } if call_key.get().is_none()));
    let week = Some(Duration::from_secs(7 * 86_400));
    assert!(
        matches!(&config.store, store::Settings::Embedded { dir, retain, retain_bytes: Some(10_737_418_240) } if dir == Path::new("/d/traces") && *retain == week)
    );
    assert_eq!(config.trace.spool_dir, Path::new("/d/spool"));
    assert_eq!((config.registry.register_ttl.as_secs(), config.registry.register_interval.as_secs()), (10, 3));
    assert_eq!((config.registry.grace.as_secs(), config.registry_wait.as_secs()), (15, 30));
    assert_eq!((config.consumer.batch_events, config.consumer.batch_bytes), (8_000, 8 << 20), "a commit is dear");
    let error = config.for_gateway().expect_err("nothing to serve").to_string();
    assert!(error.starts_with("config.yml: a gateway needs `services`"), "{error}");
}

#[test]
fn stored_bytes_are_bounded_unless_told_otherwise() {
    for (text, expected) in [("1GiB", Some(1 << 30)), ("unlimited", None)] {
        let config = load(&format!("traces: {{ retainBytes: {text}, retain: forever }}"), &[]).expect("good");
        assert!(
            matches!(&config.store, store::Settings::Embedded { retain: None, retain_bytes, .. } if *retain_bytes == expected)
        );
    }
}

#[test]
fn servers_are_used_once_named() {
    let text = "callServiceKey: [new, old]
ETCDADDR: 'http://a:2379|b:2379'
amqpaddr: 'amqp://u:p@h:5672/'
esaddr: 'http://es:9200'
amqp: { exchange: trace, durable: false }
traces: { message: single, redact: [X-Api-Key, cookie], sample: 0 }
registry: { namespace: go-ms, ttl: 30, interval: 10 }
";
    let config = load(text, &[]).expect("good");
    let Backend::Etcd(etcd) = &config.registry.backend else { panic!("{:?}", config.registry) };
    assert_eq!(etcd.endpoints, ["http://a:2379", "b:2379"]);
    let Transport::Amqp(amqp) = &config.trace.transport else { panic!("{:?}", config.trace) };
    assert_eq!(amqp.urls, ["amqp://u:p@h:5672"]);
    assert_eq!((&*amqp.exchange, &*amqp.queue, &*amqp.routing_key, amqp.durable), ("trace", "trace", "trace", false));
    assert_eq!(config.consumer.amqp.as_ref(), Some(amqp));
    assert!(
        matches!(&config.store, store::Settings::Elasticsearch(es) if es.urls == ["http://es:9200"] && es.index == "trace_logs")
    );
    assert_eq!((config.trace.message, config.trace.sample), (Message::Single, 0.0));
    assert_eq!((config.consumer.batch_events, config.consumer.batch_bytes), (1_000, 4 << 20));
    assert_eq!(
        config.trace.redact.headers,
        ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"]
    );
    assert_eq!(config.call_keys, config.consumer.call_keys);
    assert_eq!(config.call_keys[..], config.gateway.call_keys[..]);
    assert_eq!(config.registry.namespace, "go-ms");
    let config = load("callServiceKey: k", &[]).expect("good");
    assert!(
        matches!(&config.trace.transport, Transport::Direct { call_key } if call_key.get().as_deref() == Some("k"))
    );
}

#[test]
fn flags_go_over_the_file() {
    let text = "etcdAddr: 'a:1'\nregistry: { ttl: 30, interval: 10, grace: 1, wait: 1, namespace: n }\nlog: { level: warn, format: json }";
    let config = load(text, &[]).expect("good");
    assert_eq!(config.log.verbosity, -1);
    let all = [
        "--registry=local",
        "--register-ttl=10",
        "--register-interval=5",
        "--registry-grace=0",
        "--registry-wait=0s",
        "--namespace=m",
        "--log-format=text",
        "-v",
        "-http_port=0",
        "--workers=3",
        "--access-log",
        "--zone=z",
        "--bind=::1",
    ];
    let config = load(text, &all).expect("good");
    assert!(matches!(config.registry.backend, Backend::Local { .. }));
    assert_eq!((config.registry.register_ttl.as_secs(), config.registry.register_interval.as_secs()), (10, 5));
    assert_eq!((config.registry.grace, config.registry_wait), (Duration::ZERO, Duration::ZERO));
    assert_eq!((&*config.registry.namespace, config.log.verbosity), ("m", 1));
    assert_eq!((config.node.http_port, config.node.workers, config.gateway.access_log), (Some(0), 3, true));
    assert!(config.node.bind_given && config.node.bind.is_ipv6() && config.node.zone == "z");
    // A short TTL takes a short interval with it.
    let config = load("", &["--register-ttl", "2"]).expect("good");
    assert!(config.registry.register_interval < Duration::from_secs(1));
    let config = load("", &["--etcd-addr", "x:1|y:2"]).expect("good");
    assert!(matches!(&config.registry.backend, Backend::Etcd(etcd) if etcd.endpoints == ["x:1", "y:2"]));
}

#[test]
fn consul_and_a_static_file_are_named_by_kind_and_address() {
    let consul = |text: &str, args: &[&str]| match load(text, args).expect("good").registry.backend {
        Backend::Consul(consul) => {
            (consul.address, consul.token, consul.ca_file.map(|file| file.display().to_string()))
        }
        other => panic!("{other:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(consul("registry: {kind: consul}", &[]), ("127.0.0.1:8500".into(), None, None));
    let all = "registry: {kind: consul, address: 'https://c:8501', token: secret, caFile: ca.pem}";
    assert_eq!(consul(all, &[]), ("https://c:8501".into(), some("secret"), some("ca.pem")));
    assert_eq!(consul(all, &["--registry-address=d:1"]).0, "d:1");
    assert_eq!(consul("etcdAddr: 'a:1'", &["--registry=consul"]).0, "127.0.0.1:8500");
    let printed = load(all, &[]).expect("good").to_yaml().expect("YAML");
    assert!(printed.contains("token: redacted") && !printed.contains("secret"), "{printed}");
    let file = |text: &str, args: &[&str]| match load(text, args).expect("good").registry.backend {
        Backend::Static { file } => file.display().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(file("registry: {kind: static, address: nodes}", &[]), "nodes");
    assert_eq!(file("", &["--registry=static", "--registry-address=/etc/goms/nodes.json"]), "/etc/goms/nodes.json");
    for (text, args, wanted) in [
        ("registry: {kind: static}", &[][..], "config.yml:1: registry.kind: the registry `static` needs a file"),
        ("", &["--registry=static"], "--registry: the registry `static` needs a file"),
        ("registry: {address: 'a:1'}", &[], "registry.address: is for `kind: consul`, `kubernetes` and `static`"),
        ("registry: {kind: consul, address: 'a'}", &[], "write for example `127.0.0.1:8500`"),
        ("registry: {kind: consul, token: 'a b'}", &[], "registry.token: must be printable ASCII"),
        ("", &["--registry-address=nodes.yml"], "--registry-address: is a file, which only `--registry static` reads"),
        ("", &["--registry=consul", "--registry-address=a:1,b:2"], "--registry-address: must be one address"),
    ] {
        let said = load(text, args).expect_err(wanted).to_string();
        assert!(said.contains(wanted), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_broker_is_named_by_kind_or_address() {
    use goms::broker::Backend as Broker;
    let broker = |text: &str, args: &[&str]| load(text, args).expect("good").broker;
    let memory = broker("", &[]);
    assert_eq!((memory.backend, memory.attempts, memory.namespace.as_str()), (Broker::Memory, 5, "goms"));
    let amqp = |url: &str| Broker::Amqp(vec![url.to_owned()]);
    let mqtt =
        |url: &str, ca_file: Option<&str>| Broker::Mqtt { url: url.to_owned(), ca_file: ca_file.map(Into::into) };
    assert_eq!(broker("broker: {kind: amqp}", &[]).backend, amqp("amqp://guest:guest@127.0.0.1:5672"));
    assert_eq!(broker("{amqpAddr: 'amqp://h', broker: {kind: amqp}}", &[]).backend, amqp("amqp://h"));
    assert_eq!(broker("amqpAddr: 'amqp://h'", &[]).backend, Broker::Memory, "that is for traces");
    assert_eq!(broker("", &["--broker=mqtt"]).backend, mqtt("mqtt://127.0.0.1:1883", None));
    let text = "broker: {address: 'mqtts://h', caFile: ca.pem}";
    assert_eq!(broker(text, &[]).backend, mqtt("mqtts://h", Some("ca.pem")));
    let two = ["nats://a:1", "nats://b:2"].map(str::to_owned).to_vec();
    assert_eq!(broker("", &["--broker-address=nats://a:1, nats://b:2"]).backend, Broker::Nats(two));
    let settings = broker("broker: {attempts: 2, backoff: 1s}", &[]);
    assert_eq!((settings.attempts, settings.backoff), (2, Duration::from_secs(1)));
    let args = ["--registry-address=127.0.0.1:1", "--broker=http"];
    assert_eq!(broker("", &args).backend, Broker::Http(None));
    let args = ["--registry-address=127.0.0.1:1", "--broker-address=http://0.0.0.0:9900"];
    assert_eq!(broker("", &args).backend, Broker::Http(Some(([0, 0, 0, 0], 9900).into())));
    let printed = load("broker: {address: 'nats://u:secret@h:1'}", &[]).expect("good").to_yaml().expect("YAML");
    assert!(printed.contains("nats://u:redacted@h:1") && !printed.contains("secret"), "{printed}");
    for (text, args, wanted) in [
        ("broker: {kind: kafka}", &[][..], "broker.kind: unknown broker `kafka`"),
        (
            "broker: {kind: mqtt, address: 'amqp://h'}",
            &[],
            "broker.address: `amqp://h` is no address: it must begin with `mqtt://`",
        ),
        ("broker: {address: 'mqtt://h', caFile: ca.pem}", &[], "broker.caFile: vouches for a broker at `mqtts://`"),
        ("broker: {address: 'mqtts://'}", &[], "broker.address: `mqtts://` is no address"),
        ("broker: {kind: memory, address: 'nats://h'}", &[], "broker.address: is for another broker than `memory`"),
        ("broker: {attempts: 0}", &[], "broker.attempts: "),
        ("", &["--broker=mqtt", "--broker-address=mqtt://a,mqtt://b"], "--broker-address: must be one address"),
        ("broker: {kind: http}", &[], "broker.kind: the broker `http` finds who hears in etcd"),
        ("", &["--broker=http"], "--broker: the broker `http` finds who hears in etcd"),
        (
            "etcdAddr: ['127.0.0.1:1']\nbroker: {kind: http, address: 'http://h'}",
            &[],
            "is not where a process can listen",
        ),
        ("", &["--broker=nats", "--broker-address=nats://"], "--broker-address: `nats://` is no address"),
    ] {
        let said = load(text, args).expect_err(text).to_string();
        assert!(said.contains(wanted), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn spans_are_taken_where_the_flags_say_or_the_file() {
    let spans = |text: &str, args: &[&str]| {
        let cli = cli::parse(["goms", "trace-consumer"].iter().chain(args).map(Into::into)).expect("good flags");
        let cli::Command::TraceConsumer(args) = &cli.command else { panic!("another command") };
        let config =
            Config::parse("config.yml", text, &cli.common, &cli.node()).expect("good").with_intake(&args.intake);
        (config.spans.otlp.to_string(), config.spans.zipkin.to_string())
    };
    let both = |otlp: &str, zipkin: &str| (otlp.to_owned(), zipkin.to_owned());
    assert_eq!(spans("", &[]), both("off", "off"));
    assert_eq!(spans("", &["--otlp", "--zipkin"]), both("on", "on"));
    let file = "consumer: {otlp: 127.0.0.1:1, zipkin: on}";
    assert_eq!(spans(file, &[]), both("127.0.0.1:1", "on"));
    assert_eq!(spans(file, &["--otlp", "2", "--zipkin=off"]), both("2", "off"));
}

#[test]
fn flags_that_do_not_fit_are_named() {
    let said = |args: &[&str]| load("", args).expect_err("refused").to_string();
    assert!(said(&["--register-interval=10"]).starts_with("--register-interval: must be smaller than the ttl `10s`"));
    assert!(said(&["--registry=etcd"]).starts_with("--registry: the registry `etcd` needs an address"));
    assert!(said(&["--register-ttl=500ms"]).starts_with("--register-ttl: must be at least `1s`"));
}
