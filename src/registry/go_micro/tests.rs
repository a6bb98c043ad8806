use super::super::NodeState;
use super::*;

const KEY: &str = "/micro/registry/go.micro.srv.greeter/go.micro.srv.greeter-1";

fn one(value: &str) -> Node {
    let mut nodes = read(KEY, value.as_bytes()).expect(value);
    assert_eq!(nodes.len(), 1, "{value}");
    nodes.remove(0)
}

#[test]
fn names_are_short_and_full() {
    for (short, full) in [
        ("greeter", "go.micro.srv.greeter"),
        ("greeter-api", "go.micro.api.greeter"),
        ("big-shop", "go.micro.srv.big-shop"),
        ("-api", "go.micro.srv.-api"),
    ] {
        assert_eq!(full_name(short), full);
        assert_eq!(short_name(full).as_deref(), Some(short));
    }
    assert_eq!(full_name("shop.cart"), "shop.cart");
    for other in ["user", "go.micro.web.x", "go.micro.srv.a.b", "go.micro.srv.x-api"] {
        assert_eq!(short_name(other), None, "{other}");
    }
}

#[test]
fn a_v2_node_is_called_by_grpc_and_a_v5_node_by_mucp() {
    let grpc = one(r#"{"name":"go.micro.srv.greeter","version":"latest","metadata":null,"endpoints":[
        {"name":"Say.Chat","request":null,"response":null,"metadata":{"stream":"true"}},
        {"name":"Say.Hello","request":{"name":"Request"},"response":null,"metadata":{}}],
        "nodes":[{"id":"n","address":"127.0.0.1:25001","metadata":{"protocol":"grpc","server":"grpc"}}]}"#);
    assert_eq!(grpc.id.to_string(), "127.0.0.1:25001_127.0.0.1:");
    assert_eq!((grpc.meta.protocols.as_slice(), grpc.meta.version.as_str()), (&["grpc".to_owned()][..], "latest"));
    assert_eq!(grpc.meta.endpoints, ["Say.Chat", "Say.Hello"]);
    assert_eq!(grpc.meta.streams, ["Say.Chat"]);
    assert_eq!(grpc.meta.record.as_deref(), Some(KEY));
    assert_eq!((grpc.state, grpc.takes_http()), (NodeState::Ready, false));
    let mucp = one(r#"{"nodes":[{"address":"[::1]:9","metadata":{"protocol":"mucp"}}]}"#);
    assert_eq!((mucp.id.to_string().as_str(), mucp.id.service.as_str()), ("[::1]:_[::1]:9", "go.micro.srv.greeter"));
    assert!(!mucp.takes_http(), "it takes mucp and no other HTTP");
    let web = one(r#"{"nodes":[{"address":"10.0.0.1:9","metadata":null}]}"#);
    assert!(web.takes_http());
    let first = one(r#"{"nodes":[{"address":"10.0.0.1","port":9,"metadata":{"server":"rpc"}}]}"#);
    assert_eq!(first.id.http, HostPort::new([10, 0, 0, 1].into(), 9));
}

#[test]
fn a_node_of_ours_says_all_it_would_say_in_our_own_format() {
    let ip = IpAddr::from([127, 0, 0, 1]);
    for mucp in [false, true] {
        let protocols = ["http", if mucp { "mucp" } else { "grpc" }].map(str::to_owned).to_vec();
        let meta = NodeMeta {
            version: "1.2.3".into(),
            weight: 3,
            protocols,
            endpoints: vec!["Say.Hello".into(), "Say.Chat".into()],
            streams: vec!["Say.Chat".into()],
            ..NodeMeta::default()
        };
        let id =
            NodeId { service: "go.micro.srv.greeter".into(), rpc: HostPort::new(ip, 1), http: HostPort::new(ip, 2) };
        let node = Node::new(id, meta);
        let (key, value) = (key(&node.id), record(&node));
        assert!(key.starts_with("/micro/registry/go.micro.srv.greeter/go.micro.srv.greeter-"), "{key}");
        assert_eq!(read(&key, &value).expect("ours"), std::slice::from_ref(&node));
        let value: Value = serde_json::from_slice(&value).expect("json");
        assert_eq!(value["name"], "go.micro.srv.greeter");
        assert_eq!(value["endpoints"][1]["metadata"]["stream"], "true");
        assert!(value["endpoints"][0]["request"].is_object() && value["endpoints"][0]["response"].is_object());
        let told = &value["nodes"][0];
        assert_eq!(told["address"], if mucp { "127.0.0.1:2" } else { "127.0.0.1:1" });
        for (name, expected) in [
            ("broker", "http"),
            ("registry", "etcd"),
            ("protocol", if mucp { "mucp" } else { "grpc" }),
            ("server", if mucp { "mucp" } else { "grpc" }),
            ("transport", if mucp { "http" } else { "grpc" }),
        ] {
            assert_eq!(told["metadata"][name], expected);
        }
    }
}

#[test]
fn junk_is_an_error_and_nulls_are_not() {
    let good = r#"{"name":"a","nodes":[{"id":"n","address":"1.2.3.4:5","metadata":{"protocol":"grpc"}}]}"#;
    for end in 0..good.len() {
        assert!(read(KEY, &good.as_bytes()[..end]).is_err(), "half a JSON of {end} bytes");
    }
    for bad in ["", "0", "[]", "null", "\u{0}", "{}", r#"{"nodes":null}"#, r#"{"nodes":[null]}"#, r#"{"nodes":[{}]}"#] {
        assert!(read(KEY, bad.as_bytes()).is_err(), "{bad}");
    }
    for address in ["", "1.2.3.4", "1.2.3.4:0", "host:1", "1.2.3.4:70000", ":1"] {
        let value = format!(r#"{{"nodes":[{{"address":"{address}"}}]}}"#);
        assert!(read(KEY, value.as_bytes()).is_err(), "{address}");
    }
    for key in ["/micro/registry/", "/micro/registry/a", "/micro/registry/a/", "/micro/registry//n", "/other/a/n"] {
        assert!(read(key, br#"{"nodes":[{"address":"1.2.3.4:5"}]}"#).is_err(), "{key}");
    }
    let nulls = one(
        r#"{"name":null,"version":null,"metadata":null,"endpoints":[null,{"name":null},{"name":"A.B","metadata":null}],
        "nodes":[null,{"id":null,"address":"1.2.3.4:5","metadata":{"protocol":null,"x":null}},{"address":null}]}"#,
    );
    assert_eq!((nulls.id.service.as_str(), nulls.meta.endpoints), ("go.micro.srv.greeter", vec!["A.B".to_owned()]));
}

#[test]
fn no_label_says_how_a_node_is_called() {
    let at = |port| HostPort::new([127, 0, 0, 1].into(), port);
    let id = NodeId { service: "go.micro.srv.greeter".to_owned(), rpc: at(1), http: at(2) };
    let mut meta = NodeMeta::default();
    for (name, value) in [("protocol", "mucp"), ("goms", "{}"), ("zone", "a")] {
        meta.labels.insert(name.to_owned(), value.to_owned());
    }
    let node = Node::new(id, meta);
    let told: serde_json::Value = serde_json::from_slice(&record(&node)).unwrap();
    let metadata = &told["nodes"][0]["metadata"];
    assert_eq!((&metadata["protocol"], &metadata["zone"]), (&json!("grpc"), &json!("a")));
    assert_eq!(read(KEY, &record(&node)).unwrap(), [node]);
}
