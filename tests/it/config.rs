//! What a user writes into a config file, and what is said about it.

mod auth;
mod doors;
mod go_micro;
mod guide;
mod rates;
mod routes;
mod schema;
mod servers;
mod terms;
mod upstream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use goms::balance::Selector;
use goms::cli::{self, Cli};
use goms::config::{Config, ConfigErrors, NodeFlags};
use goms::gateway::{AnswerForm, Encode};

fn flags(args: &[&str]) -> Cli {
    cli::parse(["goms", "gateway"].iter().chain(args).map(Into::into)).expect("good flags")
}

fn load(text: &str, args: &[&str]) -> Result<Config, ConfigErrors> {
    let cli = flags(args);
    Config::parse("config.yml", text, &cli.common, &cli.node())
}

fn faults(text: &str) -> String {
    load(text, &[]).expect_err(text).to_string()
}

fn ours(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file)
}

#[test]
fn every_file_in_config_loads() {
    let mut files = 0;
    for entry in std::fs::read_dir(ours("")).expect("config/") {
        let path = entry.expect("an entry").path();
        let cli = flags(&["--config", path.to_str().expect("utf-8")]);
        let config = Config::load(&cli.common, &cli.node()).unwrap_or_else(|errors| panic!("{errors}"));
        config.for_gateway().expect("services");
        assert!(config.gateway.services["user"].actions["login"].path == "/login");
        files += 1;
    }
    assert!(files >= 2);
}

#[test]
fn the_examples_in_comments_are_good_and_are_the_defaults() {
    let text = std::fs::read_to_string(ours("config.yml")).expect("config.yml");
    let plain = load(&text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let uncommented = uncommented(&text);
    let full = load(&uncommented, &[]).unwrap_or_else(|errors| panic!("{errors}\n{uncommented}"));
    for key in
        ["callServiceKey", "etcdAddr", "amqpAddr", "esAddr", "upstreams", "cancel", "- match", "rewrite", "respond"]
    {
        assert!(uncommented.lines().any(|line| line.trim_start().starts_with(key)), "{key} in\n{uncommented}");
    }
    assert_eq!(full.gateway.routes.len(), 7);
    assert_eq!(full.gateway.services["order"].actions["status"].rpc.as_deref(), Some("Order.Status"));
    assert_eq!(full.gateway.services["order"].actions["cancel"].policy.retry_status, [502, 503]);
    // What stands there is what applies without it.
    let bare = load("services: {user: {register: /register, login: /login}, order: {submit: /order/submit}}", &[]);
    assert_eq!(yaml(&plain), yaml(&bare.expect("good")));
}

/// The text with the examples in its comments.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        let word = line.split(':').next().unwrap_or_default().trim_start_matches("- ");
        line.contains(':') && !word.is_empty() && word.chars().all(char::is_alphanumeric)
    };
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix("# ").map(|rest| (rest, rest.trim_start())) {
            Some((rest, word)) if is_key(word) && !word.starts_with("Order") => format!("{}{rest}\n", &line[..indent]),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

fn yaml(config: &Config) -> String {
    config.to_yaml().expect("YAML")
}

#[test]
fn all_faults_are_told_at_once_each_with_its_line() {
    let text = "callServicekeys: abc
etcdAddr: [\"127.0.0.1\"]
amqpAddr: mqtt://user:secret@host
services:
  user:
    login: { path: login, timeout: 0s, retyr: {} }
    register: /register
    register: /again
  my_order: { submit: /submit }
upstreams:
  usr: { selector: round-robbin, encode: [json] }
traces: { message: batched, sample: 2, spoolBytes: 10 apples }
limits: 5
registry: { kind: konsul, ttl: 3s, interval: 3s, namespace: a_b }
log: { level: informational }
";
    let wanted = "config.yml:1: unknown key `callServicekeys`; did you mean `callServiceKey`?
config.yml:2: etcdAddr[0]: `127.0.0.1` is no address: it has no port; write for example `127.0.0.1:2379`
config.yml:3: amqpAddr: `mqtt://user:redacted@host` is no RabbitMQ address: it must begin with `amqp://` or `amqps://`; write for example `amqp://guest:guest@127.0.0.1:5672`
config.yml:6: services.user.login: unknown key `retyr`; did you mean `retry`?
config.yml:6: services.user.login.timeout: must be greater than 0, got `0s`
config.yml:6: services.user.login.path: must begin with `/`, got `login`
config.yml:8: services.user.register: stands here a second time; the first is on line 7
config.yml:9: services: service name `my_order` must not contain `_`; use letters, digits, `-`, `.`
config.yml:11: upstreams.usr.encode: must be a single value, got a list
config.yml:11: upstreams.usr.selector: unknown selector `round-robbin`; did you mean `round-robin`?
config.yml:11: upstreams.usr: no service `usr` stands under `services` or in `routes`; did you mean `user`?
config.yml:12: traces.message: unknown word `batched`; did you mean `batch`?
config.yml:12: traces.sample: must be a number from 0 (none) to 1 (all), got `2`
config.yml:12: traces.spoolBytes: `10 apples` is no size; write bytes, or for example `64KiB` or `10MiB`
config.yml:13: limits: must be a mapping (`key: value`), got a single value
config.yml:14: registry.kind: unknown registry `konsul`; did you mean `consul`?
config.yml:14: registry.namespace: namespace `a_b` must not contain `_`; use letters, digits, `-`
config.yml:14: registry.interval: must be smaller than the ttl `3s`, or nodes vanish between renewals; got `3s`
config.yml:15: log.level: unknown log level `informational`; did you mean `info`?";
    assert_eq!(faults(text), wanted);
}

#[test]
fn one_fault_each() {
    let cases = [
        ("a: [1, 2", "config.yml:1: no YAML: "),
        ("a: 1\n\tb: 2", "config.yml:2: no YAML: "),
        ("- a\n- b", "config.yml:1: must be a mapping (`key: value`), got a list"),
        ("just text", "config.yml:1: must be a mapping"),
        (
            "amqpaddr: amqp://h\namqpAddr: amqp://h",
            "config.yml:2: amqpAddr: stands here a second time; the first is on line 1",
        ),
        ("<<: {a: 1}", "config.yml:1: unknown key `<<`"),
        ("services: {<<: {a: /b}}", "config.yml:1: services: service name `<<` must begin with a letter or digit"),
        ("services: {'': {a: /b}}", "config.yml:1: services: a service name must not be empty"),
        ("services: {user: }", "config.yml:1: services.user: has no actions"),
        ("services: {user: /login}", "config.yml:1: services.user: must be a mapping"),
        ("services: {user: {login: }}", "config.yml:1: services.user.login: has no path"),
        ("services: {user: {login: {timeout: 1s}}}", "config.yml:1: services.user.login: has no `path`"),
        ("services: {user: {login: [/a]}}", "config.yml:1: services.user.login: must be a mapping"),
        ("services: {user: {'a/b': /a}}", "config.yml:1: services.user: action name `a/b` must not contain `/`"),
        ("services: {user: {login: '/a?b'}}", "config.yml:1: services.user.login: must be a path without `?`"),
        ("services: {user: {login: {path: /a, methods: [POTS]}}}", "unknown method `POTS`; did you mean `POST`?"),
        ("services: {user: {login: {path: /a, methods: {}}}}", "methods: must be a list (`[a, b]`) or a single value"),
        (
            "services: {user: {login: {path: /a, retry: {on: [conect]}}}}",
            "retry.on[0]: `conect` is neither `connect` nor a status",
        ),
        ("services: {user: {login: {path: /a, retry: {on: [200]}}}}", "`200` is no status of a failure"),
        (
            "services: {user: {login: {path: /a, retry: {attempts: 0}}}}",
            "retry.attempts: must be a number from 1 to 20",
        ),
        ("services: {user: {login: {path: /a, encode: jsn}}}", "encode: unknown word `jsn`; did you mean `json`?"),
        ("services: {user: {login: {path: /a, timeout: soon}}}", "timeout: `soon` is no duration"),
        ("callServiceKey: 12345", "config.yml:1: callServiceKey: must be text, got a number; put it in quotes"),
        ("callServiceKey: [a, '']", "config.yml:1: callServiceKey[1]: must not be empty"),
        ("callServiceKey: \"a\\nb\"", "callServiceKey: must be printable ASCII"),
        ("etcdAddr: 'a:1|b'", "config.yml:1: etcdAddr: `b` is no address"),
        ("etcd: {user: u}", "config.yml:1: etcd.user: a user needs a `password`"),
        ("etcd: {keyFile: u}", "config.yml:1: etcd.keyFile: a key needs a `certFile`"),
        ("esAddr: 'ftp://h'", "config.yml:1: esAddr: `ftp://h` is no Elasticsearch address"),
        ("esAddr: ['http://a', 'ftp://h']", "config.yml:1: esAddr[1]: `ftp://h` is no Elasticsearch address"),
        ("{esAddr: a, es: {user: u}}", "config.yml:1: es.user: a user needs a `password`"),
        ("{esAddr: a, es: {user: u, password: p, apiKey: k}}", "es.apiKey: `es.user` or `es.password` is given too"),
        ("{esAddr: 'http://u:p@a', es: {apiKey: k}}", "config.yml:1: es.apiKey: a user in `esAddr` is given too"),
        ("{esAddr: a, es: {apiKey: 'a b'}}", "config.yml:1: es.apiKey: is no API key"),
        ("{esAddr: ['https://a', b], es: {caFile: c}}", "config.yml:1: es.caFile: `http://b` is without TLS"),
        ("es: {usr: u}", "config.yml:1: es: unknown key `usr`; did you mean `user`?"),
        ("esIndex: Trace", "config.yml:1: esIndex: `Trace` is no name of an index"),
        ("amqp: {routingKey: x}", "amqp.routingKey: the default exchange routes by the queue's name `trace`, got `x`"),
        ("amqp: {durable: yes}", "amqp.durable: must be `true` or `false`, got `yes`"),
        ("registry: {kind: etcd}", "config.yml:1: registry.kind: the registry `etcd` needs an address"),
        ("registry: {kind: etdc}", "registry.kind: unknown registry `etdc`; did you mean `etcd`?"),
        ("registry: {ttl: 500ms}", "config.yml:1: registry.ttl: must be at least `1s`, got `500ms`"),
        ("registry: {interval: 10}", "registry.interval: must be smaller than the ttl `10s`"),
        ("traces: {redact: ['a b']}", "config.yml:1: traces.redact[0]: `a b` is no header name"),
        ("traces: {redact: {query: ['a=b']}}", "traces.redact.query[0]: `a=b` is no name of a query parameter"),
        (
            "traces: {redact: {body: [a, 'b[0]']}}",
            "traces.redact.body[1]: `b[0]` is no path into a JSON body; write for",
        ),
        ("traces: {redact: {bodies: [a]}}", "traces.redact: unknown key `bodies`"),
        ("esIndex: café", "config.yml:1: esIndex: `café` is no name of an index"),
        ("esIndex: a+b", "config.yml:1: esIndex: `a+b` is no name of an index"),
        // RabbitMQ, a consumer and the spool take 16 MiB at most: a larger event would hold up or spoil all behind it
        ("traces: {bodyBytes: 64MiB}", "traces.bodyBytes: must be at most `1048576` bytes, got `64MiB`"),
        ("traces: {spoolBytes: 10}", "traces.spoolBytes: must be at least `1048576` bytes"),
        (
            "consumer: {otlp: here}",
            "consumer.otlp: `here` is no place to listen; write `on`, `off`, a port, or for example `127.0.0.1:4318`",
        ),
        ("consumer: {zipkin: {listen: 9411}}", "consumer.zipkin: must be a single value, got a mapping"),
        ("traces: {retainBytes: 1MiB}", "traces.retainBytes: must be at least `16777216` bytes"),
        ("consumer: {prefetch: 70000}", "consumer.prefetch: must be a number from 1 to 65535, got `70000`"),
    ];
    for (text, part) in cases {
        let said = faults(text);
        assert!(said.contains(part), "{text}\n{said}");
        assert_eq!(said.lines().count(), 1, "{text}\n{said}");
    }
}

#[test]
fn policies_are_looked_up_action_upstream_default() {
    let text = "services:
  user:
    login: { path: /login, timeout: 3s, methods: post, retry: { attempts: 5, on: [connect, 503, 502, 503] } }
    register: /register
  order: { submit: { path: /submit, answer: untouched } }
upstreams:
  user: { selector: p2c, timeout: 7, encode: form, answer: go-ms, retry: { attempts: 2, backoff: 0, nonIdempotent: true } }
";
    let config = load(text, &["--selector", "random"]).expect("good");
    let (user, order) = (&config.gateway.services["user"], &config.gateway.services["order"]);
    assert_eq!((user.balance.selector, order.balance.selector), (Selector::P2c, Selector::Random));
    let login = &user.actions["login"];
    assert_eq!(
        (login.encode, login.answer, &*login.methods),
        (Encode::Form, AnswerForm::GoMs, &["POST".to_owned()][..])
    );
    assert_eq!((login.policy.timeout, login.policy.attempts), (Duration::from_secs(3), 5));
    assert_eq!((&*login.policy.retry_status, login.policy.retry_non_idempotent), (&[502, 503][..], true));
    let register = &user.actions["register"];
    assert_eq!((register.policy.timeout, register.policy.attempts), (Duration::from_secs(7), 2));
    assert_eq!(register.policy.backoff, Duration::ZERO);
    let submit = &order.actions["submit"];
    assert_eq!((submit.encode, submit.answer), (Encode::Json, AnswerForm::Untouched));
    assert_eq!(submit.policy, goms::upstream::Policy::default());
}

#[test]
fn a_named_file_must_be_there() {
    let dir = std::env::temp_dir().join(goms_unique());
    std::fs::create_dir_all(&dir).expect("temp dir");
    let load = |path: &Path| {
        let cli = flags(&["--config", path.to_str().expect("utf-8")]);
        Config::load(&cli.common, &NodeFlags::default()).expect_err("refused").to_string()
    };
    let missing = dir.join("missing.yml");
    let said = load(&missing);
    assert!(said.starts_with(&format!("{}: cannot read the config: ", missing.display())), "{said}");
    assert!(load(&dir).contains("cannot read the config"));
    let binary = dir.join("binary.yml");
    std::fs::write(&binary, b"a: 1\nb: \xff\xfe").expect("written");
    assert_eq!(load(&binary), format!("{}:2: is no UTF-8 text", binary.display()));
    std::fs::remove_dir_all(&dir).expect("removed");
}

fn goms_unique() -> String {
    crate::support::servers::unique("goms-config-")
}

#[test]
fn what_is_printed_loads_again_and_holds_no_secret() {
    let text = "callServiceKey: [secret1, secret2]
etcdAddr: ['https://a:1', 'b:2']
etcd: { user: root, password: secret3, certFile: c, keyFile: k }
amqpAddr: ['amqp://u:secret4@h', 'amqps://u:secret5@h2/vhost']
esAddr: http://elastic:secret6@es:9200
services: { user: { login: { path: /l, methods: [GET, POST], timeout: 1m30s, retry: { on: [503] }, encode: none } } }
upstreams: { user: { selector: source-hash } }
log: { level: trace, format: json }
";
    let config = load(text, &[]).expect("good");
    let printed = yaml(&config);
    assert!(!printed.contains("secret"), "{printed}");
    for part in [
        "timeout: 1m30s",
        "selector: source-hash",
        "amqps://u:redacted@h2/vhost",
        "level: trace",
        "# config: config.yml",
    ] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
    let again = load(&printed, &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(yaml(&again), printed);
    for text in [
        "",
        "{esAddr: 'https://a:9200,https://b:9200', es: {user: u, password: secret, caFile: ca.pem}}",
        "{esAddr: [a, b, a], es: {apiKey: 'id:secret'}}",
        "traces: { retain: forever, slow: 3s, redact: { query: [t], body: ['$.a[*].b'] } }",
        "registry: { kind: memory }",
        "{tls: {certificates: [{cert: a.pem, key: b.pem}, {cert: c, key: d}], clientCa: ca, clientAuth: optional, redirectToHttps: 443}}",
        "{trustedProxies: [10.0.0.0/8, '::1', unix], proxyProtocol: on, limits: {sendTimeout: 5s}}",
    ] {
        let printed = yaml(&load(text, &[]).expect("good"));
        assert!(!printed.contains("secret"), "{printed}");
        assert_eq!(yaml(&load(&printed, &[]).expect("loads")), printed);
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = std::fs::read_to_string(ours("config.yml")).expect("config.yml");
    let seeds = [
        seed.as_str(),
        "a: &x {b: [*x, !!str c, 'd', \"\\x41\"]}\n? |\n  e\n: >-\n  f\n",
        "%YAML 1.2\n---\n[{}, ~]\n...\n",
    ];
    let splices = [
        "\0",
        "\u{feff}",
        ":",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "|",
        ">",
        "\t",
        "\r",
        "'",
        "\"",
        "%",
        "!",
        "# ",
        "\n",
        "---\n",
        "💥",
        "\u{2028}",
        "? ",
        "!!",
        "\\x",
        "-9999999999",
    ];
    let cli = flags(&[]);
    let check = |text: &str| drop(Config::parse("x", text, &cli.common, &NodeFlags::default()));
    let mut state = 0x9e37_79b9_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for splice in splices {
        check(splice);
        check(&splice.repeat(2_000));
    }
    for _ in 0..1_500 {
        let soup: String = (0..=random(40)).map(|_| splices[random(splices.len())]).collect();
        check(&soup);
        let mut text = seeds[random(seeds.len())].to_owned();
        for _ in 0..=random(4) {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = boundaries[random(boundaries.len())];
            match random(3) {
                0 => text.insert_str(at, splices[random(splices.len())]),
                1 => text.truncate(at),
                _ => drop(text.remove(at)),
            }
            if text.is_empty() {
                text.push('a');
            }
        }
        check(&text);
    }
}
