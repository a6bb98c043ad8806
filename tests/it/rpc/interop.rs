//! gRPC's own interoperability client through the gateway, to its own server: every case that needs no credentials of a cloud
//! and no balancing policy of its own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::gateway::Front;
use super::node;
use crate::support::servers;

const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// Ends the program with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn every_case_of_grpcs_own_client_passes() {
    let Some(folder) = servers::grpc_interop() else { return };
    let port = crate::support::ports::free_port();
    let server = Command::new(format!("{folder}/server"))
        .args(["-port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Server(server.expect("the server starts"));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the server listens within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let front = Front::open(vec![node("grpc.testing", address)], "");
    let gateway = front.running.address().port().to_string();
    for case in CASES {
        let mut client = tokio::process::Command::new(format!("{folder}/client"));
        client.args(["-server_host", "127.0.0.1", "-server_port", &gateway, "-test_case", case]).kill_on_drop(true);
        let ran = tokio::time::timeout(Duration::from_secs(30), client.output()).await;
        let ran = ran.unwrap_or_else(|_| panic!("{case} takes over 30 s")).expect("the client runs");
        assert!(ran.status.success(), "{case}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    front.end().await;
}
