//! gRPC's own interoperability client through the gateway to its server (`tests/interop/grpc`), both written in Go by the
//! people of gRPC: every case that needs neither credentials of a cloud nor a balancing policy of the client's own
//! (<https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>).

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::gateway::Front;
use super::node;
use crate::support::{ports, servers, wait_for};

const CASES: [&str; 16] = [
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
    "rpc_soak",
    "channel_soak",
];

/// Ends with its test.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn the_official_client_passes_through_the_gateway() {
    let Some(programs) = servers::grpc_interop() else { return };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()));
    let mut server = Command::new(format!("{programs}/server"));
    let server = server.arg(format!("--port={}", address.port())).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(server.spawn().expect("the server starts"));
    wait_for("the interoperability server", || TcpStream::connect(address).is_ok()).await;
    let mut target = node("interop", address);
    target.meta.rpc_services = vec!["grpc.testing.TestService".to_owned()];
    let front = Front::open(vec![target], "");
    let port = front.running.address().port();
    let mut wrong = Vec::new();
    for case in CASES {
        let mut client = Command::new(format!("{programs}/client"));
        client.args(["--server_host=127.0.0.1", "--soak_iterations=20", "--soak_overall_timeout_seconds=60"]);
        client.args([format!("--server_port={port}"), format!("--test_case={case}")]);
        let done = tokio::task::spawn_blocking(move || client.output()).await.unwrap().expect("the client runs");
        if !done.status.success() {
            wrong.push(format!("{case}: {}", String::from_utf8_lossy(&done.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    front.end().await;
}
