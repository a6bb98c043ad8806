//! The document of all services' APIs, and the pages that read it.

use std::time::Instant;

use goms::Service;
use goms::service::Running;
use serde_json::{Value, json};

use super::{Up, traces_of, with_admin};
use crate::service::{RUNTIME, parts};
use crate::support::browser::Browser;
use crate::support::goms::{Folder, Goms, PATIENCE};
use crate::support::http::{get, post, wait_for_status};
use crate::support::origin::{Origin, Reply, answer, json as told};

/// Two documents that have the same names, of OpenAPI 3.0 and 3.1, and some that nobody should rely on.
fn shop() -> Value {
    json!({"openapi": "3.0.3", "info": {"title": "<script>window.ran=1</script>", "version": "1"}, "paths": {
        "/items/{item}": {
            "parameters": [{"name": "item", "in": "path", "required": true, "schema": {"type": "string"}}],
            "get": {"summary": "One <b>item</b>", "responses": {"200": {"description": "it", "content": {"application/json":
                {"schema": {"$ref": "#/components/schemas/Item"}}}}}}},
        "/order": {"post": {"summary": "Order something", "requestBody": {"content": {"application/json": {"schema":
            {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}}}}}},
            "responses": {"201": {"description": "done"}}}},
        "/../cart/x": {"get": {"responses": {}}},
        "/api/cart/stolen": {"get": {"responses": {"200": {"description": "x"}}}},
    }, "components": {"schemas": {"Item": {"type": "object", "properties": {
        "name": {"type": "string", "nullable": true}, "next": {"$ref": "#/components/schemas/Item"},
        "file": {"$ref": "file:///etc/passwd"}}}}}})
}

fn cart() -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "cart", "version": "1"}, "paths": {"/add": {"put": {
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}},
        "responses": {"200": {"description": "added"}}}}},
        "components": {"schemas": {"Item": {"type": "object", "properties": {"sku": {"type": "integer"}}}}}})
}

const CONFIG: &str = "
services:
  cart: { put-in: { path: /add, methods: [PUT] }, empty: /empty }
  health: { check: { rpc: Health.Check } }
routes:
  - { name: goods, match: { path: \"/goods/*\" }, service: shop, strip: /goods }
  - { match: { path: /old }, redirect: { to: /new, status: 301 } }
";

/// A gateway, services with documents, and one with methods by RPC.
struct Cluster {
    _goms: Goms,
    _folder: Folder,
    _origins: Vec<Origin>,
    _health: Running,
    admin: String,
}

fn cluster() -> Cluster {
    let serving = |reply: Vec<u8>| RUNTIME.block_on(Origin::answering(reply));
    let huge = format!("{{\"openapi\":\"3.1.0\",\"x\":\"{}\"}}", "x".repeat(3 << 20));
    let deep = format!("{{\"openapi\":\"3.1.0\",\"paths\":{}1{}}}", "{\"a\":".repeat(500), "}".repeat(500));
    let served = [
        ("shop", told(&shop().to_string())),
        ("cart", told(&cart().to_string())),
        ("page", answer("200 OK", "Content-Type: text/html\r\n", "<html>no document</html>")),
        ("huge", told(&huge)),
        ("deep", told(&deep)),
        ("gone", answer("404 Not Found", "", "no")),
    ];
    let mut origins: Vec<(&str, Origin)> = served.into_iter().map(|(name, reply)| (name, serving(reply))).collect();
    origins.push(("mute", RUNTIME.block_on(Origin::start(|_, _| Reply::Never))));
    let (_reporter, service) = tonic_health::server::health_reporter();
    let service = Service::new("health").grpc(service).reflection(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let health = crate::rpc::start(service.expect("descriptors"), parts("health").0);
    let mut listing = "services:\n".to_owned();
    for (name, origin) in &origins {
        listing.push_str(&format!("  {name}: [{{ http: \"{}\", openapi: /openapi.json }}]\n", origin.address));
    }
    listing.push_str(&format!(
        "  health: [{{ http: \"127.0.0.1:1\", rpc: \"{}\", rpcServices: [grpc.health.v1.Health, grpc.reflection.v1.ServerReflection] }}]\n",
        health.address()
    ));
    let folder = Folder::new();
    let (nodes, config) = (folder.write("nodes.yml", &listing), folder.write("config.yml", CONFIG));
    let args = ["gateway", "--bind", "127.0.0.1", "--http-port", "0", "--rpc-port", "0", "--admin-port", "0"];
    let more = ["--registry", "static", "--registry-address", &nodes, "--config", &config];
    let (goms, admin) = with_admin(&folder, &[&args[..], &more[..]].concat());
    wait_for_status(&admin, "/readyz", 200);
    let origins = origins.into_iter().map(|(_, origin)| origin).collect();
    Cluster { _goms: goms, _folder: folder, _origins: origins, _health: health, admin }
}

/// Whether another reader takes it as OpenAPI 3.1, and every reference leads somewhere.
fn assert_valid(document: &Value) {
    let text = document.to_string();
    let read = oas3::from_json(&text).expect("OpenAPI 3.1");
    read.validate_version().expect("a version of it");
    for part in text.split("\"$ref\":\"").skip(1) {
        let named = part.split('"').next().expect("a name").trim_start_matches('#');
        assert!(document.pointer(named).is_some(), "{named} leads nowhere");
    }
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let all = operation["parameters"].as_array().expect("parameters");
                let of_path =
                    all.iter().filter(|one| one["in"] == "path" && one["name"] == name && one["required"] == true);
                assert_eq!(of_path.count(), 1, "{method} {path}: {name}");
            }
        }
    }
}

#[test]
fn documents_of_services_are_merged_and_hostile_ones_do_no_harm() {
    let cluster = cluster();
    let answer = get(&cluster.admin, "/openapi.json").expect("an answer");
    assert_eq!(answer.status, 200);
    let document = answer.json();
    assert_valid(&document);
    let at = |path: &str, method: &str| &document["paths"][path][method];
    // where routes lead there
    let item = at("/goods/items/{item}", "get");
    assert_eq!(item["x-goms-source"], json!(["config", "served"]));
    assert_eq!((&item["x-goms-service-path"], &item["x-goms-routed"]), (&json!("/items/{item}"), &json!(true)));
    let put = at("/api/cart/put-in", "put");
    assert_eq!(put["requestBody"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/cart.Item");
    assert_eq!(at("/api/cart/empty", "post")["x-goms-source"], json!(["config"]));
    assert_eq!(at("/api/cart/empty", "post")["x-goms-any-method"], true);
    assert!(at("/old", "post")["responses"].get("301").is_some());
    // names of two services do not meet, and what 3.0 wrote is 3.1 now
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["shop.Item"]["properties"]["name"]["type"], json!(["string", "null"]));
    assert_eq!(schemas["shop.Item"]["properties"]["next"]["$ref"], "#/components/schemas/shop.Item");
    assert!(schemas["shop.Item"]["properties"]["file"].get("$ref").is_none(), "nothing outside of the document");
    assert_eq!(schemas["cart.Item"]["properties"]["sku"]["type"], "integer");
    // a service has no place outside of its own
    assert!(document["paths"].get("/api/cart/stolen").is_none());
    assert!(document["paths"].get("/goods/api/cart/stolen").is_some());
    // by RPC
    let check = at("/grpc.health.v1.Health/Check", "post");
    assert_eq!((&check["x-goms-source"], &check["tags"]), (&json!(["served"]), &json!(["health"])));
    let request = "#/components/schemas/health.grpc.health.v1.HealthCheckRequest";
    assert_eq!(check["requestBody"]["content"]["application/grpc+json"]["schema"]["$ref"], request);
    assert_eq!(
        at("/api/health/check", "post")["requestBody"]["content"]["application/json"]["schema"]["$ref"],
        request
    );
    // what is not here, and why
    let problems = document["x-goms-problems"].to_string();
    for (service, why) in [
        ("page", "cannot be read as JSON"),
        ("huge", ""),
        ("deep", "recursion limit"),
        ("gone", "it answers 404"),
        ("mute", ""),
        ("shop", "is no path of a service"),
    ] {
        let found = document["x-goms-problems"].as_array().into_iter().flatten();
        let found = found
            .filter(|one| one["service"] == service && one["problem"].as_str().is_some_and(|told| told.contains(why)));
        assert_eq!(found.count(), 1, "{service} {why}: {problems}");
    }
    let yaml = get(&cluster.admin, "/openapi.yaml").expect("an answer");
    let read: Value = serde_yaml::from_slice(&yaml.body).expect("YAML");
    assert_eq!(
        read["paths"].as_object().map(serde_json::Map::len),
        document["paths"].as_object().map(serde_json::Map::len)
    );
    assert!(answer.body.len() < 200_000, "{}", answer.body.len());
}

#[test]
fn the_document_is_read_searched_and_leads_to_the_playground() {
    let Some(browser) = Browser::start() else { return };
    let cluster = cluster();
    let mut page = browser.open(&format!("http://{}/openapi", cluster.admin));
    assert_eq!(page.text("nav[aria-label=Sections] a[aria-current]"), "API");
    page.wait_for_text(".operations", "/goods/items/{item}");
    page.assert_looks("openapi");
    page.fill("input[name=q]", "one ITEM");
    page.submit();
    assert_eq!(page.count(".operations tbody tr"), 1);
    page.follow(".operations tbody a");
    assert_eq!(page.text("h1"), "/goods/items/{item}");
    page.wait_for_text("main", "One <b>item</b>");
    page.wait_for_text("section[aria-label=Answers]", "next");
    page.assert_looks("openapi-operation");
    page.go(&format!("http://{}/openapi?source=learnt", cluster.admin));
    page.wait_for_text("main", "No operation is like that");
    // a method by RPC, with a field of its message, sent to its node
    page.go(&format!("http://{}/openapi?q=health.check", cluster.admin));
    page.go(&format!("http://{}/openapi?op=post%20/grpc.health.v1.Health/Check", cluster.admin));
    page.wait_for_text("section[aria-label=Body]", "service");
    page.follow(".head a.button.primary");
    page.wait_for_text("form.playground", "/grpc.health.v1.Health/Check");
    assert_eq!(page.eval("document.querySelector('#body').value"), "{\n  \"service\": \"\"\n}");
    page.follow("#send");
    page.wait_for_text("#answer", "SERVING");
    page.fill("[name='f:/service']", "no-such-thing");
    page.follow("#send");
    page.wait_for_text("#answer", "failed");
    page.wait_for_text("#answer", "service not registered");
    assert_eq!(page.eval("JSON.parse(document.querySelector('#body').value).service"), "no-such-thing");
    page.assert_looks("playground-rpc");
    // an operation over HTTP, with a list of messages
    page.choose("form[method=get] #service", "shop");
    page.wait_for("document.querySelector('#op') && !document.querySelector('#op').value");
    let before = page.url();
    page.choose("#op", "post /goods/order");
    let told = json!(before);
    page.wait_for(&format!("document.readyState === 'complete' && location.href !== {told} && document.querySelector(\"[name='f:/items/0/name']\")"));
    assert_eq!(page.eval("document.querySelector('#target').value"), "/goods/order");
    page.follow("button[value='more:/items']");
    page.fill("[name='f:/items/1/name']", "<script>window.ran=1</script>");
    page.follow("button[value=fields]");
    let body = page.eval("JSON.parse(document.querySelector('#body').value).items.map(item => item.name)");
    assert_eq!(body, json!(["", "<script>window.ran=1</script>"]));
    page.assert_looks("playground-fields");
    // what is written into the JSON is in the fields
    page.fill("#body", "{\"items\": [{\"name\": \"typed\"}]}");
    page.follow("button[value=fields]");
    assert_eq!(page.eval("document.querySelector(\"[name='f:/items/0/name']\").value"), "typed");
    page.follow("#send");
    page.wait_for_text("#answer", "200");
    assert_eq!(page.eval("window.ran ?? null"), Value::Null);
    page.finish();
}

#[test]
fn what_nobody_describes_is_learnt_from_traces() {
    let up = Up::start(&[]);
    let sent = post(&up.gateway, "/api/user/login?from=here", "{\"name\": \"ann\", \"age\": 7}").expect("an answer");
    assert_eq!(sent.status, 200);
    traces_of(&up, sent.header("x-request-id").expect("an id"));
    let deadline = Instant::now() + PATIENCE;
    let login = loop {
        let document = get(&up.admin, "/openapi.json").expect("an answer").json();
        assert_valid(&document);
        let login = document["paths"]["/api/user/login"]["post"].clone();
        if login["x-goms-source"] == json!(["config", "learnt"]) {
            break login;
        }
        assert!(Instant::now() < deadline, "{document}");
    };
    assert_eq!(login["x-goms-learnt"]["count"], 1);
    assert!(login["x-goms-learnt"]["firstSeen"].is_string());
    let schema = &login["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(
        (&schema["properties"]["age"]["type"], &schema["properties"]["name"]["type"]),
        (&json!("integer"), &json!("string"))
    );
    assert_eq!(login["parameters"][0]["name"], "from");
    assert!(login["responses"]["200"]["description"].as_str().is_some_and(|told| told.contains("seen 1 times")));
}
