//! `routes` of a config file.

use super::{faults, load};
use goms::gateway::{AnswerForm, Encode, Outcome, Rule};

const ROUTES: &str = r#"
services: { user: { login: /login } }
upstreams: { shop: { timeout: 7s, selector: p2c, encode: form } }
routes:
  - match: { path: "/files/*" }
    service: files
  - name: canary
    match: { host: "*.Example.com", path: "/shop/{id}/*", methods: [get, POST], headers: { X-Beta: "1" }, query: { v: "*" } }
    services: { shop: 90, shop-next: 10 }
    rewrite: "/v2/{id}/*"
    retry: { attempts: 2 }
    answer: goms
  - match: { path: "/old/*" }
    redirect: "https://new.example.com/*"
  - match: { path: "/robots.txt" }
    respond: { body: "User-agent: *\n", status: 200 }
  - { match: { path: "/strip/{x}/*" }, service: files, strip: "/strip/{x}" }
"#;

fn call(rule: &Rule) -> &goms::gateway::Call {
    let Outcome::Call(call) = &rule.then else { panic!("{rule:?}") };
    call
}

#[test]
fn each_kind_is_read_and_policies_are_looked_up() {
    let config = load(ROUTES, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let routes = &config.gateway.routes;
    let names: Vec<&str> = routes.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["/files/*", "canary", "/old/*", "/robots.txt", "/strip/{x}/*"]);
    let (files, canary) = (call(&routes[0]), call(&routes[1]));
    assert_eq!((files.encode, files.answer, files.policy.timeout.as_secs()), (Encode::None, AnswerForm::Untouched, 10));
    assert_eq!((canary.encode, canary.answer), (Encode::Form, AnswerForm::Goms), "upstream's, own");
    assert_eq!((canary.policy.timeout.as_secs(), canary.policy.attempts), (7, 2));
    assert_eq!(routes[1].when.methods, ["GET", "POST"]);
    assert_eq!(config.gateway.services["shop"].balance.selector, goms::balance::Selector::P2c);
    assert!(config.gateway.services["files"].actions.is_empty());
    let Outcome::Redirect(redirect) = &routes[2].then else { panic!("{routes:?}") };
    assert_eq!((redirect.to.as_str(), redirect.status), ("https://new.example.com/*", 308));
    assert_eq!(call(&routes[4]).rewrite.as_ref().map(|rewrite| rewrite.as_str()), Some("/*"));
    config.for_gateway().expect("something to serve");
    let only_routes = "routes: [{ match: { path: /a }, respond: {} }]";
    load(only_routes, &[]).expect("good").for_gateway().expect("a route is something to serve");
}

#[test]
fn what_is_printed_can_be_read_again_and_is_the_same() {
    let printed = load(ROUTES, &[]).map(|config| config.to_yaml().expect("YAML")).expect("good");
    let again = load(&printed, &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(again.to_yaml().expect("YAML"), printed);
    for text in ["host: '*.example.com'", "x-beta: '1'", "v: '*'", "shop-next: 10", "rewrite: /v2/{id}/*", "User-agent"]
    {
        assert!(printed.contains(text), "{text}:\n{printed}");
    }
}

#[test]
fn one_fault_each() {
    let cases = [
        ("{ service: a }", "routes[0]: has no `match`; write for example"),
        ("{ match: {}, service: a }", "routes[0].match: has no `path`; write `path: \"/*\"` for every path"),
        ("{ match: { path: a }, service: a }", "routes[0].match.path: must begin with `/`, got `a`"),
        ("{ match: { path: /a, hst: b }, service: a }", "routes[0].match: unknown key `hst`; did you mean `host`?"),
        ("{ match: { path: /a, host: 'a b' }, service: a }", "routes[0].match.host: must be a host like"),
        ("{ match: { path: /a, methods: [GTE] }, service: a }", "methods[0]: unknown method `GTE`; known: `GET`"),
        ("{ match: { path: /a, headers: { 'a b': c } }, service: a }", "routes[0].match.headers: "),
        (
            "{ match: { path: /a } }",
            "routes[0]: needs one of `service`, `services`, `urls`, `redirect`, `respond`, has none",
        ),
        ("{ match: { path: /a }, service: a, redirect: /b }", "has `service`, `redirect`"),
        (
            "{ match: { path: /a }, redirect: /b, timeout: 1s }",
            "`timeout` is for routes to a service, this one has `redirect`",
        ),
        ("{ match: { path: /a }, services: { a: 0 } }", "routes[0].services: gives no service a weight"),
        ("{ match: { path: /a }, services: { a: 1001 } }", "routes[0].services.a: must be a number from 0 to 1000"),
        ("{ match: { path: '/{a}' }, service: a, rewrite: '/{b}' }", "routes[0].rewrite: the path `/{a}` has no `{b}`"),
        ("{ match: { path: /a }, service: a, rewrite: b }", "routes[0].rewrite: must begin with `/`, got `b`"),
        ("{ match: { path: /a/b }, service: a, strip: /a, rewrite: /c }", "routes[0].strip: stands beside `rewrite`"),
        ("{ match: { path: /ab }, service: a, strip: /a }", "routes[0].strip: `/a` is no beginning of the path `/ab`"),
        ("{ match: { path: /a }, redirect: { status: 301 } }", "routes[0].redirect: has no `to`"),
        (
            "{ match: { path: /a }, redirect: { to: /b, status: 200 } }",
            "routes[0].redirect.status: unknown redirect `200`",
        ),
        ("{ match: { path: /a }, redirect: example.com }", "routes[0].redirect: must be a path or an address like"),
        (
            "{ match: { path: /a }, respond: { status: 99 } }",
            "routes[0].respond.status: must be a number from 200 to 599",
        ),
        ("{ match: { path: /a }, respond: { type: html } }", "routes[0].respond.type: must be a media type"),
        ("{ match: { path: /cluster }, respond: {} }", "routes[0]: the path `/cluster` is the gateway's own page"),
        (
            "{ match: { path: '/u/{a}' }, service: a }\n  - { match: { path: '/u/{b}' }, service: b }",
            "config.yml:4: routes[1]: takes the same requests as `routes[0]` on line 3; add a method, header or query",
        ),
        (
            "{ match: { path: /api/user/login, methods: [GET] }, service: a }\n  - { match: { path: /api/user/login }, service: b }",
            "config.yml:4: routes[1]: takes the same requests as the action `user/login`",
        ),
        (
            "{ name: x, match: { path: /a }, service: a }\n  - { name: x, match: { path: /b }, service: b }",
            "config.yml:4: routes[1].name: the name `x` is `routes[0]` on line 3's already",
        ),
    ];
    for (routes, expected) in cases {
        let told = faults(&format!("services: {{ user: {{ login: /login }} }}\nroutes:\n  - {routes}\n"));
        assert!(told.contains(expected) && told.lines().count() == 1, "{routes}:\n{told}");
    }
}

#[test]
fn versions_and_fallbacks_are_read_and_printed() {
    let text = r#"
services: { user: { login: { path: /login, fallback: none }, out: /out } }
upstreams: { user: { fallback: { service: user2 } }, shop: { selector: p2c, ejection: off } }
routes:
  - { match: { path: /a }, service: shop, versions: { 1.2.0: 9, 1.3.0: 1 }, fallback: { respond: { status: 503, body: no } } }
  - { match: { path: /b }, service: shop, version: 1.3.0, mirror: { service: shop, version: 2.0.0, share: 0.5%, compare: status } }
"#;
    let config = load(text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let shares: Vec<_> =
        call(&config.gateway.routes[0]).services.iter().map(|s| (s.group().to_owned(), s.weight)).collect();
    assert_eq!(shares, [("shop@1.2.0".to_owned(), 9), ("shop@1.3.0".to_owned(), 1)]);
    let balance = config.gateway.balance();
    let part = &balance["shop@1.3.0"];
    assert_eq!((part.of.as_deref(), part.version.as_deref()), (Some("shop"), Some("1.3.0")));
    assert_eq!((part.selector, &part.ejection), (balance["shop"].selector, &None), "otherwise as the service");
    assert!(balance.contains_key("user2"), "a fallback is a service");
    let mirror = call(&config.gateway.routes[1]).mirror.as_ref().unwrap();
    assert_eq!((mirror.to.group(), mirror.permille, mirror.compare), ("shop@2.0.0", 5, goms::gateway::Compare::Status));
    assert!(balance.contains_key("shop@2.0.0"), "whom a mirror names too");
    let actions = &config.gateway.services["user"].actions;
    assert!(actions["login"].fallback.is_none());
    assert!(matches!(&actions["out"].fallback, Some(goms::gateway::Fallback::Service(name)) if name == "user2"));

    let printed = config.to_yaml().unwrap();
    let again = load(&printed, &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(again.to_yaml().unwrap(), printed);
    for line in ["1.3.0: 1", "service: user2", "status: 503", "share: 0.5%"] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
}

#[test]
fn wrong_versions_and_fallbacks_are_told() {
    let text = r#"
services: { user: { login: { path: /login, fallback: { service: a, respond: {} } } } }
routes:
  - { match: { path: /a }, service: shop, versions: { 1.2.0: 0 } }
  - { match: { path: /b }, services: { shop: 1 }, version: 1.3.0 }
  - { match: { path: /c }, service: shop, version: "a b", fallback: sometimes, mirror: { share: 0% } }
"#;
    let told = faults(text);
    for part in [
        "needs one of `service` and `respond`",
        "gives no version a weight; write for example `{ 1.2.0: 90, 1.3.0: 10 }`",
        "`version` stands beside `service`, which names whose it is",
        "must be a version without spaces, such as `1.3.0`, got `a b`",
        "must be a share from `0.1%` to `100%`, got `0%`",
        "mirror: has no `service`; write for example `{ service: shop-next, share: 10% }`",
        "must be `none`, `service` or `respond`, got `sometimes`",
    ] {
        assert!(told.contains(part), "{part} in:\n{told}");
    }
}
