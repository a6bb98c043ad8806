//! The RPC port: `grpc.health.v1`.

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
