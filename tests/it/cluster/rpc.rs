//! The RPC port: `grpc.health.v1`, and calls from the command line.

use std::time::Duration;

use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{service, until};
use crate::support::goms::{Folder, run};

#[tokio::test]
async fn grpc_health_tells_whether_the_node_takes_requests() {
    let folder = Folder::new();
    let (_user, _) = service(&folder, "user", &[]);
    let node = until("the node", || {
        let rows: serde_json::Value =
            serde_json::from_slice(&run(folder.path(), &["cluster", "nodes", "user", "--output", "json"]).stdout)
                .ok()?;
        rows[0]["node"].as_str().map(str::to_owned)
    });
    let rpc = node.split('_').next().expect("the rpc address").to_owned();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{rpc}")).expect("an address").connect().await;
    let mut client = HealthClient::new(channel.expect("the rpc port answers"));
    for service in ["", "user"] {
        let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let unknown = client.check(HealthCheckRequest { service: "nobody".to_owned() }).await.expect_err("unknown");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Named {
    name: String,
}

async fn hello(_ctx: goms::Context, message: Named) -> Result<String, goms::ServiceError> {
    Ok(format!("Hello {}", message.name))
}

async fn sum(_ctx: goms::Context, mut numbers: goms::Requests<i64>) -> Result<i64, goms::ServiceError> {
    let mut sum = 0;
    while let Some(number) = numbers.next().await? {
        sum += number;
    }
    Ok(sum)
}

/// A node of this service in the registry of a folder.
async fn registered(
    folder: &Folder,
    service: goms::Service,
    background: &Shutdown,
) -> (goms::service::Running, impl Sized) {
    let name = service.name().to_owned();
    let mut node_meta = goms::registry::NodeMeta::default();
    node_meta.tell_methods(service.endpoints(), service.rpc_services());
    let running = crate::rpc::start(service, crate::service::parts(&name).0);
    let mut node = crate::rpc::node(&name, running.address());
    node.meta = node_meta;
    let settings = goms::registry::Settings {
        backend: goms::registry::Backend::Local { dir: folder.path().to_owned() },
        namespace: "goms".to_owned(),
        register_ttl: Duration::from_secs(30),
        register_interval: Duration::from_secs(10),
        grace: Duration::from_secs(10),
        format: goms::registry::Format::default(),
        remember: None,
    };
    let registry = goms::registry::open(&settings, background, &Metrics::new()).expect("a registry");
    registry.register(node).await.expect("registered");
    (running, registry)
}

#[tokio::test]
async fn methods_are_listed_and_called_from_the_command_line() {
    let folder = Folder::new();
    let service = goms::Service::new("greeter").rpc("Say.Hello", hello).rpc_client_stream("Say.Sum", sum);
    let background = Shutdown::new();
    let (running, _registry) = registered(&folder, service, &background).await;
    let at = running.address();
    let (dir, port) = (folder.path().to_owned(), at.port());
    let ran = tokio::task::spawn_blocking(move || {
        let ran = |args: &[&str]| {
            let ended = run(&dir, args);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
        };
        let ok = |text: String| (Some(0), text, String::new());
        let listed = "SERVICE  NODES  GRPC SERVICES  METHODS\ngreeter  1      greeter.Say    Say.Hello, Say.Sum\n";
        assert_eq!(ran(&["rpc", "list"]), ok(listed.to_owned()));
        let (code, described, _) = ran(&["rpc", "describe", "greeter", "--output", "json"]);
        assert_eq!(code, Some(0));
        let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
        assert_eq!(
            described[0],
            serde_json::json!({"method": "Say.Hello", "path": "/greeter.Say/Hello", "nodes": [format!("127.0.0.1:{port}")]})
        );
        assert_eq!(
            ran(&["call", "greeter", "Say.Hello", "--data", r#"{"name":"John"}"#]),
            ok("\"Hello John\"\n".to_owned())
        );
        assert_eq!(ran(&["call", "greeter", "Say.Sum", "--data", "1 2 3"]), ok("6\n".to_owned()));
        for (args, code, why) in [
            (&["call", "greeter", "Say.Bye"][..], 69, "it has Say.Hello, Say.Sum"),
            (&["call", "nobody", "Say.Hello"], 69, "no node of service `nobody` is registered"),
            (&["call", "greeter", "Say.Hello", "--data", "{"], 64, "`--data` is no JSON"),
            (&["call", "greeter/hello"], 64, "no action `greeter/hello` in the config"),
            (&["rpc", "describe", "nobody"], 69, "of those that do there is greeter"),
        ] {
            let (ended, _, said) = ran(args);
            assert!(ended == Some(code) && said.contains(why), "{args:?}: {ended:?} {said}");
        }
    });
    ran.await.expect("the command line");
    background.begin();
    assert!(running.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn services_of_protobuf_are_described_and_called_from_the_command_line() {
    let folder = Folder::new();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("thing", tonic_health::ServingStatus::Serving).await;
    let service = goms::Service::new("health").grpc(health);
    let service = service.reflection(tonic_health::pb::FILE_DESCRIPTOR_SET).expect("descriptors");
    let background = Shutdown::new();
    let (running, _registry) = registered(&folder, service, &background).await;
    let (dir, port) = (folder.path().to_owned(), running.address().port());
    let ran = tokio::task::spawn_blocking(move || {
        let ran = |args: &[&str]| {
            let ended = run(&dir, args);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
        };
        let (code, listed, said) = ran(&["rpc", "list"]);
        assert!(code == Some(0) && said.is_empty() && listed.contains("Health.Check, Health.Watch"), "{listed} {said}");
        let (code, described, said) = ran(&["rpc", "describe", "health", "--output", "json"]);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
        let response = serde_json::json!({"name": "grpc.health.v1.HealthCheckResponse", "fields": [
            {"name": "status", "type": "grpc.health.v1.HealthCheckResponse.ServingStatus"}]});
        let request = serde_json::json!({"name": "grpc.health.v1.HealthCheckRequest", "fields": [
            {"name": "service", "type": "string"}]});
        let watch = serde_json::json!({"method": "Health.Watch", "path": "/grpc.health.v1.Health/Watch",
            "request": request, "requestStream": false, "response": response, "responseStream": true,
            "nodes": [format!("127.0.0.1:{port}")]});
        let found = described.as_array().expect("a list").iter().find(|one| one["method"] == "Health.Watch");
        assert_eq!(found, Some(&watch));
        let (_, table, _) = ran(&["rpc", "describe", "health"]);
        assert!(table.contains("stream grpc.health.v1.HealthCheckResponse { status: "), "{table}");
        let called = ran(&["call", "health", "Health.Check", "--data", r#"{"service":"thing"}"#]);
        assert_eq!(called, (Some(0), "{\"status\":\"SERVING\"}\n".to_owned(), String::new()));
        let (code, _, said) = ran(&["call", "health", "Health.Check", "--data", r#"{"servise":"thing"}"#]);
        assert!(code == Some(69) && said.contains("unrecognized field name 'servise'"), "{code:?} {said}");
    });
    ran.await.expect("the command line");
    background.begin();
    assert!(running.stop(Duration::from_secs(2)).await);
}
