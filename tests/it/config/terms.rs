//! `cors`, header rules, `bodyBytes` of a config file.

use super::{faults, load, yaml};
use goms::gateway::Terms;

const TEXT: &str = r#"
defaults: { cors: "https://a.test", responseHeaders: { set: { x-frame-options: DENY } }, bodyBytes: 1MiB, compress: { minBytes: 5, types: ["text/*", "*+json"] } }
upstreams: { user: { cors: { origins: [https://*.b.test], methods: [get], headers: [X-A], expose: [x-b], maxAge: 1h } } }
services:
  user: { login: /login, none: { path: /none, cors: none, responseHeaders: {}, bodyBytes: 5, compress: false } }
  order: { submit: { path: /submit, requestHeaders: { remove: [x-a], set: { X-B: 1, authorization: Basic c2VjcmV0 }, add: { x-c: [a, "b c"] } } } }
"#;

#[test]
fn faults_are_looked_up_and_printed() {
    let text = r#"
defaults: { faults: { abort: 500, everyone: true } }
upstreams: { user: { faults: { delay: 500ms, share: 0.5%, headers: { X-Fault: slow, x-team: "*" } } } }
services: { user: { a: /a, b: { path: /b, faults: none } }, order: { c: /c } }
"#;
    let config = load(text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = |service: &str, action: &str| {
        let terms = &config.gateway.services[service].actions[action].terms;
        terms.faults.as_ref().map(ToString::to_string)
    };
    assert_eq!(shown("user", "a").unwrap(), "delay=500ms for 0.5% of requests with x-fault: slow and x-team: *");
    assert_eq!(shown("user", "b"), None);
    assert_eq!(shown("order", "c").unwrap(), "abort=500 for 100% of everyone's requests");
    let printed = yaml(&config);
    assert_eq!(yaml(&load(&printed, &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"))), printed);
}

#[test]
fn each_key_is_looked_up_and_printed() {
    let config = load(TEXT, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let terms =
        |service: &str, action: &str| -> Terms { config.gateway.services[service].actions[action].terms.clone() };
    let login = terms("user", "login");
    let cors = login.cors.unwrap();
    assert_eq!(
        (cors.origins[0].to_string(), cors.methods),
        ("https://*.b.test".to_owned(), Some(vec!["GET".to_owned()]))
    );
    assert_eq!((cors.headers, cors.max_age.as_secs()), (Some(vec!["x-a".to_owned()]), 3600));
    assert_eq!((login.answer_fields.set.len(), login.body_bytes), (1, Some(1 << 20)));
    let none = terms("user", "none");
    assert!(none.cors.is_none() && none.answer_fields.is_empty() && none.body_bytes == Some(5));
    assert!(none.compression.is_none());
    let compression = login.compression.unwrap();
    assert_eq!((compression.codings.len(), compression.least_bytes, compression.types.len()), (3, 5, 2));
    let submit = terms("order", "submit");
    assert_eq!(submit.cors.unwrap().origins[0].to_string(), "https://a.test");
    assert_eq!(submit.request_fields.add.len(), 2);
    let codings = |text: &str| {
        let config =
            load(&format!("services: {{ user: {{ a: {{ path: /a, compress: {text} }} }} }}"), &[]).expect(text);
        let compression = config.gateway.services["user"].actions["a"].terms.compression.clone();
        compression.map(|compression| compression.codings.iter().map(|coding| coding.name()).collect::<Vec<_>>())
    };
    assert_eq!(codings("true"), Some(vec!["zstd", "br", "gzip"]));
    assert_eq!((codings("[gzip, br]"), codings("gzip")), (Some(vec!["gzip", "br"]), Some(vec!["gzip"])));
    assert_eq!((codings("false"), codings("none")), (None, None));
    let printed = yaml(&config);
    assert!(!printed.contains("c2VjcmV0"), "{printed}");
    let again = load(&printed, &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(yaml(&again), printed);
    let again = again.gateway;
    assert!(again.page.cors.is_some() && again.services["user"].actions["none"].terms.cors.is_none());
}

#[test]
fn one_fault_each() {
    for (terms, fault) in [
        ("cors: {}", "user.a.cors: has no `origins`"),
        ("cors: []", "user.a.cors: names no origin; write `none`"),
        ("cors: example.com", "user.a.cors: `example.com` is no origin"),
        (
            "cors: { origins: '*', credentials: true }",
            "cors.origins: `*` cannot go with `credentials`; name the origins",
        ),
        ("cors: { origins: '*', methods: [GTE] }", "cors.methods[0]: unknown method `GTE`"),
        ("cors: { origins: '*', headers: ['a b'] }", "cors.headers[0]: `a b` is no header name"),
        ("cors: { origin: '*' }", "user.a.cors: unknown key `origin`; did you mean `origins`?"),
        (
            "requestHeaders: { remove: [Connection] }",
            "requestHeaders.remove[0]: `connection` is the gateway's own business",
        ),
        ("requestHeaders: { set: { Host: a } }", "requestHeaders.set.host: `host` is the gateway's own business"),
        ("requestHeaders: { set: { content-length: 1 } }", "requestHeaders.set.content-length: "),
        ("requestHeaders: { add: { call_service_key: a } }", "requestHeaders.add.call_service_key: "),
        ("requestHeaders: { add: { X-Forwarded-For: a } }", "requestHeaders.add.x-forwarded-for: "),
        ("responseHeaders: { set: { transfer-encoding: a } }", "responseHeaders.set.transfer-encoding: "),
        ("responseHeaders: { set: { x-request-id: a } }", "responseHeaders.set.x-request-id: "),
        (
            "responseHeaders: { set: { x-a: \"a\\nb\" } }",
            "responseHeaders.set.x-a: must be one line of printable ASCII",
        ),
        ("responseHeaders: { 'a b': c }", "user.a.responseHeaders: unknown key `a b`"),
        (
            "compress: deflate",
            "user.a.compress: must be `true`, `false` or a list of `zstd`, `br` and `gzip`, got `deflate`",
        ),
        ("compress: [gzip, deflate]", "compress[1]: unknown coding `deflate`"),
        ("compress: { types: [text] }", "compress.types[0]: `text` is no media type"),
        ("bodyBytes: some", "user.a.bodyBytes: `some` is no size"),
        ("faults: { everyone: true }", "user.a.faults: does nothing; write for example `{ delay: 500ms"),
        ("faults: { abort: 503 }", "user.a.faults: would strike every request; name `headers`"),
        ("faults: { abort: 503, headers: {} }", "user.a.faults: would strike every request"),
        ("faults: { abort: 503, everyone: false }", "user.a.faults: would strike every request"),
        (
            "faults: { abort: 503, everyone: true, headers: { a: b } }",
            "user.a.faults.everyone: stands beside `headers`",
        ),
        ("faults: { abort: 200, everyone: true }", "user.a.faults.abort: must be a number from 400 to 599"),
        ("faults: { delay: 1h, everyone: true }", "user.a.faults.delay: must be at most `1m`, got `1h`"),
        ("faults: { abort: 503, share: 0%, everyone: true }", "user.a.faults.share: must be a share from `0.1%`"),
        ("faults: { aborts: 503 }", "user.a.faults: unknown key `aborts`; did you mean `abort`?"),
    ] {
        let found = faults(&format!("services: {{ user: {{ a: {{ path: /a, {terms} }} }} }}"));
        let has_more = found.lines().count() > 1 && !terms.contains("origin: ");
        assert!(found.contains(fault) && !has_more, "{terms}\n{found}\nnot: {fault}");
    }
}
