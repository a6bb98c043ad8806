//! Services whose ports take TLS alone, beside others that take none: the registry tells which.

use super::{gateway, service, wait_for_nodes};
use crate::support::goms::Folder;
use crate::support::http::{get, wait_for_status};
use crate::support::origin::Origin;
use crate::support::tls::{Identity, client, connect};
use crate::support::wire::Reader;

const ROUTES: &str = "services: {user: {login: /login}}\n";

#[test]
fn nodes_that_take_tls_are_called_so_and_others_plainly() {
    let (folder, identity) = (Folder::new(), Identity::new());
    let files = identity.files(folder.path());
    let (ca, cert, key) = (files.ca.display(), files.certificate.display(), files.key.display());
    let own = format!("certificates: [{{ cert: {cert}, key: {key} }}], clientCa: {ca}, clientAuth: required");
    let secure = folder.write("secure.yml", &format!("{ROUTES}serviceTls: {{ {own} }}\n"));
    let plain = folder.write("plain.yml", ROUTES);
    let call = format!("call: {{ ca: {ca}, cert: {cert}, key: {key} }}");
    let trusting = folder.write("trusting.yml", &format!("{ROUTES}serviceTls: {{ {call} }}\n"));
    let nameless = folder.write("nameless.yml", &format!("{ROUTES}serviceTls: {{ call: {{ ca: {ca} }} }}\n"));

    let (tls_node, tls_address) = service(&folder, "user", &["--config", &secure]);
    let (_gateway, address) = gateway(&folder, &["--config", &trusting]);
    wait_for_status(&address, "/api/user/login", 200);
    assert!(get(&tls_address, "/login").map_or(true, |answer| answer.status != 200), "it takes no plain request");

    let (plain_node, _) = service(&folder, "user", &["--config", &plain]);
    wait_for_nodes(&folder, "user", 2, &[]);
    for _ in 0..10 {
        assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200);
    }
    for node in [&tls_node, &plain_node] {
        node.wait_for("/login"); // each tells of its requests
    }
    // whoever does not say who it is, or whom to trust, does not get through to the one, and the other still answers
    assert_eq!(plain_node.terminate(), 0);
    wait_for_nodes(&folder, "user", 1, &[]);
    for config in [&nameless, &plain] {
        let (_other, address) = gateway(&folder, &["--config", config]);
        wait_for_status(&address, "/api/user/login", 502);
    }
    assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200);
    assert_eq!(tls_node.terminate(), 0);
}

/// Its port spoke HTTP/2 to who offered it, and of a body without a length the program then got nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_the_body_of_a_client_that_offers_http2() {
    let (folder, identity, program) = (Folder::new(), Identity::new(), Origin::echo().await);
    let files = identity.files(folder.path());
    let (cert, key) = (files.certificate.display(), files.key.display());
    let own = format!("serviceTls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}\n");
    let config = folder.write("config.yml", &format!("{ROUTES}{own}"));
    let url = format!("http://{}", program.address);
    let (node, address) = service(&folder, "user", &["--config", &config, "--app", &url]);
    let client = client(&identity.ca, &["h2", "http/1.1"], None);
    let stream = connect(&client, address.parse().expect("an address"), "127.0.0.1").await.expect("tls");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut reader = Reader::new(stream);
    let fields = "Host: user\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked";
    for body in ["\"one\"", "\"another\""] {
        let head = format!("POST /login HTTP/1.1\r\n{fields}\r\n\r\n{:x}\r\n", body.len());
        reader.send(format!("{head}{body}\r\n0\r\n\r\n")).await;
        let got = reader.answer(false).await.expect("an answer");
        assert_eq!((got.status, got.json()["data"]["body"].to_string()), (200, body.to_owned()));
        assert_eq!(program.seen().last().expect("a request").text(), body);
    }
    assert_eq!(node.terminate(), 0);
}
