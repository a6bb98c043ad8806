//! A WebSocket through goms to the program behind it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use goms::service::{PROGRAM_TIMEOUT, serve_program};

use super::{listener, next, parts};

/// Reads up to the end of a head.
fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_websocket_reaches_the_program() {
    let program = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/base", program.local_addr().unwrap()).parse().unwrap();
    let (mut parts, mut events) = parts("py");
    parts.call_keys = vec!["secret".to_owned()].into();
    let running = {
        let _runtime = super::RUNTIME.enter();
        serve_program(listener(), "py", &url, PROGRAM_TIMEOUT, parts).unwrap()
    };
    let ask = |key: &str| {
        let mut client = TcpStream::connect(running.address()).unwrap();
        let asks =
            "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        write!(client, "GET /chat HTTP/1.1\r\nHost: a\r\nCall-Service-Key: {key}\r\n{asks}\r\n\r\n").unwrap();
        client
    };
    assert!(head(&mut ask("wrong")).starts_with("HTTP/1.1 403 "));

    let mut client = ask("secret");
    let (mut behind, _) = program.accept().unwrap();
    let asked = head(&mut behind).to_ascii_lowercase();
    assert!(asked.starts_with("get /base/chat http/1.1\r\n"), "{asked}");
    for field in
        ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"]
    {
        assert!(asked.contains(field), "{field} in {asked}");
    }
    assert!(!asked.contains("secret"), "{asked}");
    behind.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert!(head(&mut client).starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    client.write_all(b"to the program").unwrap();
    let mut got = [0; 14];
    behind.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"to the program");
    behind.write_all(b"and back").unwrap();
    drop(behind);
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"and back");
    for status in [None, Some(101)] {
        assert_eq!(next(&mut events).await.status, status);
    }
}
