//! Routes to servers that stand in the config, and calls by TLS.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, dead};
use crate::support::tls::{Authority, TlsFront};

#[tokio::test]
async fn servers_of_the_config_take_turns_and_one_that_is_away_is_passed_over() {
    let (one, other) = (Origin::echo().await, Origin::echo().await);
    let text = format!(
        "routes: [{{ match: {{ path: \"/x/*\" }}, urls: [\"http://{}\", \"http://localhost:{}\", \"http://{}\"], strip: /x }}]",
        one.address,
        other.address.port(),
        dead()
    );
    let door = door(&text, &[]);
    wait_for("the name", || door.balancer.view().iter().any(|group| group.nodes.len() >= 3)).await;
    for _ in 0..12 {
        assert_eq!(door.ask("GET", "/x/a?b=1", "", "").await.status, 200);
    }
    let (one, other_seen) = (one.seen(), other.seen());
    assert!(one.len() >= 4 && other_seen.len() >= 4, "{} {}", one.len(), other_seen.len());
    assert_eq!(one[0].target, "/a?b=1");
    assert_eq!(other_seen[0].header("host"), Some(format!("localhost:{}", other.address.port()).as_str()));
}

#[tokio::test]
async fn others_take_their_place_while_requests_go_on() {
    let (one, other) = (Origin::echo().await, Origin::echo().await);
    let text = |at: SocketAddr| format!("routes: [{{ match: {{ path: /x }}, urls: [\"http://{at}\"] }}]");
    let door = door(&text(one.address), &[]);
    assert_eq!(door.ask("GET", "/x", "", "").await.status, 200);
    let settings = config(&text(other.address)).unwrap();
    door.balancer.configure(settings.balance());
    door.live.replace(settings);
    assert_eq!(door.ask("GET", "/x", "", "").await.status, 200);
    assert_eq!((one.seen().len(), other.seen().len()), (1, 1));
}

fn config(text: &str) -> Result<Settings, String> {
    let cli = goms::cli::parse(["goms", "gateway"].map(Into::into)).unwrap();
    let config = goms::config::Config::parse("config.yml", text, &cli.common, &cli.node());
    config.map(|config| config.gateway).map_err(|faults| faults.to_string())
}

#[tokio::test]
async fn tls_is_verified_and_goms_shows_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::echo().await;
    let identity = Authority::new().vouch(&["localhost", "127.0.0.1", "goms"]);
    let files = identity.files(folder.path());
    let front = TlsFront::start(&identity, origin.address).await;
    let asking = TlsFront::asking(&identity, origin.address).await;
    let (port, ca) = (front.address.port(), files.ca.display());
    let own = format!("cert: {}, key: {}", files.certificate.display(), files.key.display());
    let door = door(
        &format!(
            r#"
upstreams: {{ user: {{ tls: {{ ca: "{ca}" }}, retry: {{ attempts: 1 }} }} }}
services: {{ user: {{ login: /login }} }}
routes:
  - {{ match: {{ path: /good }}, urls: ["https://localhost:{port}"], tls: {{ ca: "{ca}" }} }}
  - {{ match: {{ path: /named }}, urls: ["https://127.0.0.1:{port}"], tls: {{ ca: "{ca}", serverName: goms }} }}
  - {{ match: {{ path: /other }}, urls: ["https://127.0.0.1:{port}"], tls: {{ ca: "{ca}", serverName: other.test }} }}
  - {{ match: {{ path: /stranger }}, urls: ["https://127.0.0.1:{port}"] }}
  - {{ match: {{ path: /asked }}, urls: ["https://{}"], tls: {{ ca: "{ca}", {own} }} }}
  - {{ match: {{ path: /refused }}, urls: ["https://{}"], tls: {{ ca: "{ca}" }} }}
"#,
            asking.address, asking.address
        ),
        &[("user", front.address)],
    );
    wait_for("the name", || door.balancer.view().iter().all(|group| !group.nodes.is_empty())).await;
    for (target, status) in
        [("/good", 200), ("/named", 200), ("/other", 502), ("/stranger", 502), ("/asked", 200), ("/refused", 502)]
    {
        for _ in 0..3 {
            let got = door.ask("GET", target, "", "").await;
            assert_eq!(got.status, status, "{target}: {}", got.text());
        }
    }
    assert_eq!(door.get().await.status, 200, "nodes of the cluster too");
    assert_eq!(origin.seen()[0].header("host"), Some(format!("localhost:{port}").as_str()));
    let long = vec![b'x'; 3 << 20];
    assert_eq!(door.ask("PUT", "/good", "", &long).await.status, 200);
    assert_eq!(origin.seen().pop().unwrap().body, long);
}

#[tokio::test]
async fn a_websocket_passes_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let grant = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (address, service) = taking(grant).await;
    let identity = Authority::new().vouch(&["127.0.0.1"]);
    let front = TlsFront::start(&identity, address).await;
    let ca = identity.files(folder.path()).ca;
    let text = format!(
        "routes: [{{ match: {{ path: /ws }}, urls: [\"https://{}\"], tls: {{ ca: \"{}\" }} }}]",
        front.address,
        ca.display()
    );
    let door = door(&text, &[]);
    let mut client = door.connect().await;
    client.send(request("GET", "/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "")).await;
    assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 101 Switching Protocols");
    let (_, socket) = service.await.unwrap();
    let mut service = Reader::new(socket);
    client.send("to the service").await;
    assert_eq!(service.exactly(14).await.unwrap(), b"to the service");
    service.send("and back").await;
    assert_eq!(client.exactly(8).await.unwrap(), b"and back");
    drop(client);
    assert!(service.closes().await);
}

#[test]
fn what_is_no_server_is_told() {
    let faults = config(
        r#"
routes:
  - { match: { path: /a }, urls: [] }
  - { match: { path: /b }, urls: ["http://a/b", "ftp://a", "a:80", "http://u:p@a"] }
  - { match: { path: /c }, urls: ["http://a"], version: 1.0.0, tls: { cert: a.pem } }
  - { match: { path: /d }, urls: ["https://a"], tls: { ca: absent.pem } }
  - { match: { path: /e }, urls: ["http://a"], service: b, tls: yes }
"#,
    )
    .unwrap_err();
    for part in [
        "routes[0].urls: names 0 servers, it must be 1 to 64",
        "must be an address like `http://10.0.0.7:8080` or `https://example.com`, got `http://a/b`",
        "got `ftp://a`",
        "got `a:80`",
        "got `http://",
        "`version` stands beside `service`",
        "needs both `cert` and `key`, or none of them",
        "routes[3].tls: cannot use `absent.pem`: ",
        "needs one of `service`, `services`, `urls`, `redirect`, `respond`, has `service`, `urls`",
    ] {
        assert!(faults.contains(part), "{part} in:\n{faults}");
    }
    assert!(!faults.contains("u:p@"), "a password is not repeated: {faults}");
}

#[tokio::test]
async fn servers_that_are_no_nodes_do_not_get_the_call_key() {
    let (node, server) = (Origin::echo().await, Origin::echo().await);
    let text = format!(
        "callServiceKey: \"only for nodes\"\nservices: {{ user: {{ login: /login }} }}\n\
        routes: [{{ match: {{ path: /x }}, urls: [\"http://{}\"] }}]",
        server.address
    );
    let door = door(&text, &[("user", node.address)]);
    assert_eq!(door.ask("GET", "/api/user/login", "", "").await.status, 200);
    assert_eq!(node.only().header("call-service-key"), Some("only for nodes"));
    assert_eq!(door.ask("GET", "/x", "", "").await.status, 200);
    assert_eq!(server.only().header("call-service-key"), None);
}
