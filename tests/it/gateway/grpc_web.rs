//! gRPC-Web on the HTTP port, with a client made by hand: HTTP/1.1 as a browser sends it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Stream, stream};
use goms::rpc::frame::framed;
use goms::{Context, Service, ServiceError};
use serde_json::Value;
use tonic_health::ServingStatus;

use super::rules::door;
use super::*;
use crate::rpc::start;
use crate::service::parts;

const CONFIG: &str = "
callServiceKey: the key
grpcWeb: on
auth: { staff: { apiKeys: { keys: { ann: sixteen-or-more-letters } } } }
services: { health: { page: /page }, closed: { page: /page } }
upstreams:
  health: { cors: { origins: ['https://app.test'], expose: [x-total] }, bodyBytes: 100 }
  closed: { auth: staff, cors: 'https://app.test' }
routes: [{ match: { path: '/*', methods: [GET, OPTIONS] }, respond: { body: page } }]
";

const WEB: &str = "Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n";
const TEXT: &str = "Content-Type: application/grpc-web-text\r\n";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// `{"service": "thing"}`, in its frame.
fn thing() -> Vec<u8> {
    framed(b"\x0a\x05thing").to_vec()
}

async fn count(ctx: Context, _: Value) -> Result<impl Stream<Item = Result<u64, ServiceError>>, ServiceError> {
    assert_eq!((ctx.header("x-grpc-web"), ctx.header("x-said")), (None, Some("hello")));
    Ok(stream::iter([Ok(1), Ok(2), Err(ServiceError::new(409, "three"))]))
}

async fn never(_: Context, _: Value) -> Result<u64, ServiceError> {
    std::future::pending().await
}

async fn health() -> (Vec<Running>, Door) {
    let (mut own, _) = parts("health");
    own.call_keys = vec!["the key".to_owned()].into();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("thing", ServingStatus::Serving).await;
    let service = Service::new("health").grpc(health);
    let service = service.rpc_server_stream("count.Count.Up", count).rpc("count.Count.Never", never);
    let (endpoints, names) = (service.endpoints(), service.rpc_services());
    let running = start(service, own);
    let mut node = crate::rpc::node("health", running.address());
    node.meta.tell_methods(endpoints, names);
    let closed = start(Service::new("closed").rpc("Closed.Never", never), parts("closed").0);
    let mut other = crate::rpc::node("closed", closed.address());
    other.meta.tell_methods(vec!["Closed.Never".to_owned()], vec!["closed.Closed".to_owned()]);
    let door = door(CONFIG, &[]);
    door.publisher.publish(vec![node, other]);
    wait_for("the nodes", || {
        let view = door.balancer.view();
        view.iter().filter(|service| !service.nodes.is_empty()).count() >= 2
    })
    .await;
    (vec![running, closed], door)
}

/// The frames of an answer: what is before trailers, and their text.
fn frames(body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut rest) = (Vec::new(), body);
    while let [kind, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (frame, behind) = after.split_at(length);
        if *kind == 0x80 {
            assert!(behind.is_empty(), "trailers are the last frame");
            return (messages, String::from_utf8(frame.to_vec()).unwrap());
        }
        messages.push(frame.to_vec());
        rest = behind;
    }
    panic!("no trailers: {body:?}");
}

/// The frames of an answer in base64, whose pieces have their own padding.
fn of_text(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(4) {
        STANDARD.decode_vec(piece, &mut out).unwrap();
    }
    out
}

#[tokio::test]
async fn a_browser_calls_a_method() {
    let (_running, mut door) = health().await;
    let got = door.ask("POST", CHECK, &format!("{WEB}Origin: https://app.test\r\n"), thing()).await;
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/grpc-web+proto")));
    assert_eq!(frames(&got.body), (vec![vec![8, 1]], "grpc-status: 0\r\n".to_owned()));
    assert_eq!(got.header("access-control-allow-origin"), Some("https://app.test"));
    let exposed = "x-total, grpc-status, grpc-message, grpc-status-details-bin";
    assert_eq!(got.header("access-control-expose-headers"), Some(exposed));
    assert!(got.header("x-request-id").is_some());
    let events = [door.event().await, door.event().await];
    assert_eq!((events[0].request.head.url(), events[1].status), (CHECK, Some(200)));
    // in base64, in one piece and in several
    let several = [STANDARD.encode(&thing()[..1]), STANDARD.encode(&thing()[1..])].concat();
    for text in [STANDARD.encode(thing()), several] {
        let got = door.ask("POST", CHECK, TEXT, text).await;
        assert_eq!((got.status, got.header("content-type")), (200, Some("application/grpc-web-text")));
        assert_eq!(frames(&of_text(&got.body)), (vec![vec![8, 1]], "grpc-status: 0\r\n".to_owned()));
    }
    // JSON, and the service's own error
    let got = door.ask("POST", CHECK, WEB, framed(b"\x0a\x05other")).await;
    let (messages, trailers) = frames(&got.body);
    assert_eq!((got.status, messages.len()), (200, 0));
    assert!(trailers.contains("grpc-status: 5\r\n") && trailers.contains("grpc-message: service"), "{trailers}");
    let counted = r#"goms_requests_total{action="rpc",service="health",status="4xx"} 1"#;
    wait_for("its end to be noted", || door.metrics.render().contains(counted)).await;
    // what is no call goes where it went
    assert_eq!(door.ask("POST", CHECK, JSON, "{}").await.status, 405);
    assert_eq!(door.ask("GET", CHECK, "", "").await.text(), "page");
}

#[tokio::test]
async fn a_stream_comes_message_by_message() {
    let (_running, door) = health().await;
    let json = "Content-Type: application/grpc-web+json\r\nX-Grpc-Web: 1\r\nX-Said: hello\r\n";
    let got = door.ask("POST", "/count.Count/Up", json, framed(b"{}")).await;
    let (messages, trailers) = frames(&got.body);
    assert_eq!(messages, [b"1".to_vec(), b"2".to_vec()]);
    assert!(trailers.contains("grpc-status: 6\r\n") && trailers.contains("grpc-message: three\r\n"), "{trailers}");
    // one that goes on: its first message is there before its end
    let mut client = door.connect().await;
    client.send(request("POST", "/grpc.health.v1.Health/Watch", WEB, thing())).await;
    assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 200 OK");
    assert_eq!(client.chunk().await.unwrap(), framed(&[8, 1]));
    // the caller's deadline
    let late = format!("{json}Grpc-Timeout: 50m\r\n");
    let got = door.ask("POST", "/count.Count/Never", &late, framed(b"{}")).await;
    assert!(frames(&got.body).1.contains("grpc-status: 4\r\n"), "{:?}", got.text());
}

#[tokio::test]
async fn pages_ask_whether_they_may() {
    let (_running, door) = health().await;
    let preflight = |origin: &str| {
        format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-grpc-web\r\n"
        )
    };
    let got = door.ask("OPTIONS", CHECK, &preflight("https://app.test"), "").await;
    assert_eq!((got.status, got.header("access-control-allow-headers")), (204, Some("content-type,x-grpc-web")));
    assert_eq!(door.ask("OPTIONS", CHECK, &preflight("https://evil.test"), "").await.status, 403);
    // of nobody's service: the page that takes everything
    assert_eq!(door.ask("OPTIONS", "/no.Body/Call", &preflight("https://app.test"), "").await.text(), "page");
}

#[tokio::test]
async fn what_may_not_call_or_is_no_call_is_told_in_trailers() {
    let (_running, door) = health().await;
    let long = framed(&[0; 200]);
    let text = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
    for (target, headers, body, wanted) in [
        ("/no.Body/Call", WEB, thing(), "grpc-status: 12\r\ngrpc-message: nobody serves `no.Body`"),
        ("/closed.Closed/Never", WEB, thing(), "grpc-status: 16\r\n"),
        (CHECK, WEB, Vec::new(), "grpc-status: 3\r\ngrpc-message: a call by gRPC-Web has one message, this one has 0"),
        (CHECK, WEB, thing()[..9].to_vec(), "grpc-status: 13\r\ngrpc-message: the stream ended within a message"),
        (CHECK, WEB, b"{}".to_vec(), "grpc-status: 13\r\n"),
        (CHECK, WEB, vec![0, 0xff, 0xff, 0xff, 0xff], "grpc-status: 8\r\n"),
        (CHECK, WEB, long.to_vec(), "grpc-status: 8\r\ngrpc-message: the body has more than 100 bytes"),
    ] {
        let got = door.ask("POST", target, headers, &body).await;
        let (messages, trailers) = frames(&got.body);
        assert!(
            got.status == 200 && messages.is_empty() && trailers.starts_with(wanted),
            "{target} {body:?}: {trailers}"
        );
    }
    for body in [text(&thing())[..7].to_vec(), b"no base64".to_vec(), text(&thing()[..9])] {
        let got = door.ask("POST", CHECK, TEXT, &body).await;
        let (messages, trailers) = frames(&of_text(&got.body));
        assert!(got.status == 200 && messages.is_empty() && !trailers.contains("grpc-status: 0"), "{trailers}");
    }
    let other = door.ask("POST", CHECK, "Content-Type: application/grpc-web+thrift\r\n", thing()).await;
    assert_eq!(other.status, 415);
    let proven = format!("{WEB}X-API-Key: sixteen-or-more-letters\r\nGrpc-Timeout: 50m\r\n");
    let got = door.ask("POST", "/closed.Closed/Never", &proven, thing()).await;
    assert!(!frames(&got.body).1.contains("grpc-status: 16"), "{}", got.text());
}

/// Nobody opened it.
#[tokio::test]
async fn without_the_word_in_the_config_it_is_a_request_like_any_other() {
    let door = door(&CONFIG.replace("grpcWeb: on", ""), &[]);
    assert_eq!(door.ask("POST", CHECK, WEB, thing()).await.status, 405);
}

/// A content type was enough to get past routes.
#[tokio::test]
async fn the_terms_of_the_route_that_takes_the_path_hold() {
    for (routes, target, wanted) in [
        ("[{ match: { path: '/*' }, auth: staff, respond: { body: page } }]", CHECK, (401, None)),
        ("[{ match: { path: '/*' }, respond: { status: 503, body: closed } }]", CHECK, (503, Some("closed"))),
        (
            "[{ match: { path: '/Greeter/*' }, respond: { status: 410, body: gone } }]",
            "/Greeter/Say",
            (410, Some("gone")),
        ),
        (
            "[{ match: { path: '/grpc.health.v1.Health/*' }, respond: { status: 503, body: closed } }]",
            CHECK,
            (503, Some("closed")),
        ),
    ] {
        let (start, _) = CONFIG.split_once("routes:").unwrap();
        let door = door(&format!("{start}routes: {routes}\n"), &[]);
        for headers in [WEB, TEXT] {
            let got = door.ask("POST", target, headers, thing()).await;
            assert_eq!(got.status, wanted.0, "{routes}");
            assert!(wanted.1.is_none_or(|body| got.text() == body), "{routes}: {}", got.text());
        }
    }
    // one for the path of gRPC is for gRPC, before one that takes all
    let routes = "[{ match: { path: '/*' }, respond: { body: page } }, { match: { path: '/closed.Closed/*' }, service: closed, auth: staff }]";
    let (start, _) = CONFIG.split_once("routes:").unwrap();
    let door = door(&format!("{start}routes: {routes}\n"), &[]);
    let got = door.ask("POST", "/closed.Closed/Never", WEB, thing()).await;
    assert!(frames(&got.body).1.starts_with("grpc-status: 16\r\n"), "{}", got.text());
    assert_eq!(door.ask("POST", CHECK, WEB, thing()).await.text(), "page");
}
