//! The command line as its users meet it: exit codes and messages.

use crate::support::goms::{Folder, run};

fn outcome(folder: &Folder, args: &[&str]) -> (i32, String, String) {
    let ended = run(folder.path(), args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code().unwrap_or(-1), text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn versions_in_every_spelling() {
    let folder = Folder::new();
    for flag in ["--version", "-V", "-version"] {
        assert_eq!(outcome(&folder, &[flag]), (0, format!("goms {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    }
}

#[test]
fn a_wrong_command_line_is_64_and_a_wrong_config_78() {
    let folder = Folder::new();
    let (code, _, said) = outcome(&folder, &["gatway"]);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("gateway"), "{said}");
    let (code, _, said) = outcome(&folder, &["gateway", "--config", "missing.yml"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("missing.yml"), "{said}");
    let bad = folder.write(
        "bad.yml",
        "callServicekeys: x\nservices:\n  user:\n    login: login\n    logout: {path: /o, timeout: 0s}\n",
    );
    let (code, _, said) = outcome(&folder, &["config", "check", "--config", &bad]);
    assert_eq!(code, 78, "{said}");
    for part in
        ["bad.yml:1", "did you mean `callServiceKey`", "bad.yml:4", "begin with `/`", "bad.yml:5", "greater than 0"]
    {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
    let flags = ["gateway", "--register-ttl", "3", "--register-interval", "5"];
    let (code, _, said) = outcome(&folder, &flags);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("--register-interval"), "{said}");
    let (code, _, said) = outcome(&folder, &["service", "usr"]);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("no service `usr`") && said.contains("order, user"), "{said}");
}

#[test]
fn reading_without_a_cluster_is_69_with_a_way_out() {
    let folder = Folder::new();
    let (code, _, said) = outcome(&folder, &["trace", "search"]);
    assert_eq!(code, 69);
    assert!(said.contains("goms trace-consumer"), "{said}");
    let (code, _, said) = outcome(&folder, &["healthcheck", "--admin-addr", "127.0.0.1:1"]);
    assert_eq!(code, 69);
    assert!(said.contains("127.0.0.1:1 does not answer"), "{said}");
    let (code, shown, _) = outcome(&folder, &["cluster", "status"]);
    assert_eq!((code, shown.lines().last()), (0, Some("0 services, 0 nodes")));
}

#[test]
fn the_config_in_force_is_printed_and_good() {
    let folder = Folder::new();
    let (code, shown, said) = outcome(&folder, &["config", "print"]);
    assert_eq!(code, 0, "{said}");
    let printed = folder.write("printed.yml", &shown);
    assert!(shown.contains("login"), "{shown}");
    let (code, shown, said) = outcome(&folder, &["config", "check", "--config", &printed]);
    assert_eq!(code, 0, "{said}");
    assert!(shown.contains("2 services, 3 actions"), "{shown}");
    assert_eq!(outcome(&folder, &["completions", "bash"]).0, 0);
}

const ROUTES: &str = r#"
services: { user: { login: /login } }
routes:
  - { name: beta, match: { host: "*.example.com", path: "/shop/{id}", headers: { x-beta: "1" } }, service: shop-next }
  - { name: shop, match: { path: "/shop/{id}", methods: [GET, POST] }, services: { shop: 9, shop-next: 1 }, rewrite: "/items/{id}" }
  - { match: { path: "/old/*" }, redirect: "https://new.example.com/*" }
"#;

#[test]
fn explain_says_which_route_takes_a_request_and_why_not_the_others() {
    let folder = Folder::new();
    let config = folder.write("config.yml", ROUTES);
    let explain = |args: &[&str]| outcome(&folder, &[&["explain", "--config", &config], args].concat());
    let (code, shown, said) = explain(&["get", "/shop/%37?v=1", "-H", "X-Beta: 1"]);
    let expected = "\
ROUTE  PATH        TAKES IT
beta   /shop/{id}  no, the host is not `*.example.com`
shop   /shop/{id}  yes

service   shop 9, shop-next 1
path      /items/7
timeout   10s a try
tries     3
";
    assert_eq!((code, shown.as_str(), said.as_str()), (0, expected, ""));
    let (code, shown, _) = explain(&["GET", "https://a.example.com/shop/7", "-H", "x-beta: 1", "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((code, &shown["outcome"]["services"]), (0, &serde_json::json!({"shop-next": 1})));
    assert_eq!(shown["tried"], serde_json::json!([{"name": "beta", "path": "/shop/{id}", "refusal": null}]));
    let (code, shown, said) = explain(&["DELETE", "/shop/7", "-H", "Host: b.example.com"]);
    assert!(shown.contains("no, the header `x-beta` is not `1`"), "{shown}");
    assert!(shown.contains("no, the method is not GET, POST"), "{shown}");
    assert_eq!((code, said.contains("it takes GET, POST")), (69, true), "{said}");
    let (code, shown, _) = explain(&["GET", "/old/a"]);
    assert!(code == 0 && shown.contains("redirect  308 to https://new.example.com/a"), "{shown}");
    let (code, shown, said) = explain(&["GET", "/api/user/logn", "--all"]);
    assert!(shown.contains("user/login") && shown.contains("no, the path is another"), "{shown}");
    assert_eq!((code, said.contains("no action `logn` in service `user`; it has login")), (69, true), "{said}");
    let (code, _, said) = explain(&["GET", "/shop/../x"]);
    assert_eq!((code, said.contains("`.` or `..` segment")), (69, true), "{said}");
    for (args, why) in [
        (["GET", "shop/7", "-H", "a: b"], "write for example `/shop/7`"),
        (["GET", "/", "-H", "nonsense"], "write `name: value`"),
        (["GET", "/", "-H", "a b: c"], "is no name of a header"),
    ] {
        let (code, _, said) = explain(&args);
        assert_eq!((code, said.contains(why)), (64, true), "{said}");
    }
}

#[test]
fn explain_tells_what_goes_by_rpc_and_what_goes_wrong_on_purpose() {
    let folder = Folder::new();
    let text = "grpcWeb: on
services: { greeter: { hello: { rpc: Say.Hello }, page: /page } }
upstreams: { greeter: { faults: { abort: 503, share: 10%, headers: { x-fault: down } } } }
routes:
  - { name: own, match: { path: /shop.Cart/* }, service: shop }
  - { name: page, match: { path: /page.Page/Show }, respond: { body: page } }
";
    let config = folder.write("config.yml", text);
    let explain = |args: &[&str]| outcome(&folder, &[&["explain", "--config", &config], args].concat());
    let web = ["-H", "Content-Type: application/grpc-web+proto"];
    let faults = "faults    abort=503 for 10% of requests with x-fault: down";
    for (path, fields, lines) in [
        ("/api/greeter/hello", &[][..], &["method    Say.Hello by RPC, made of the body", faults][..]),
        ("/api/greeter/page", &[], &["path      /page", faults]),
        ("/greeter.Say/Hello", &web, &["service   greeter", "method    /greeter.Say/Hello by gRPC", faults]),
        ("/other.Say/Hello", &web, &["service   other.Say", "method    /other.Say/Hello by gRPC"]),
        ("/shop.Cart/Add", &web, &["service   shop", "method    /shop.Cart/Add by gRPC"]),
        ("/page.Page/Show", &web, &["answer    200 text/plain"]),
    ] {
        let (code, shown, said) = explain(&[&["POST", path], fields].concat());
        assert_eq!((code, said.as_str()), (0, ""), "{path}");
        assert!(lines.iter().all(|line| shown.contains(line)), "{path}\n{shown}\nnot all of {lines:?}");
        assert_eq!(shown.contains("faults"), lines.contains(&faults), "{path}\n{shown}");
    }
    let (code, shown, _) = explain(&["POST", "/greeter.Say/Hello", web[0], web[1], "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((code, &shown["outcome"]["protocol"]), (0, &"grpc-web".into()));
    assert_eq!(explain(&["POST", "/greeter.Say/Hello"]).0, 69, "over HTTP there is no such route");
    assert_eq!(explain(&[&["POST", "/nothing"], &web[..]].concat()).0, 69);
}
