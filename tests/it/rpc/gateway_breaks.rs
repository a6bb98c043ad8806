//! Calls through a gateway that break off, are given up, or panic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, stream};
use goms::{Context, Requests, Service, ServiceError};

use super::gateway::{Front, JOHN, greeter, hello, never, serving, twice};
use super::raw::{Raw, ended, framed, rest};
use super::{node, start};
use crate::service::{next, parts};
use crate::support::wait_for;

#[tokio::test]
async fn what_breaks_off_is_told_on_the_other_side() {
    let (greeter, mut events) = greeter();
    let front = Front::open(vec![serving("greeter", &greeter, &["greeter.Say"])], "");
    let raw = Raw::connect(front.running.address()).await;
    // the caller goes: the node's call ends
    let (_response, mut sender) = raw.begin("/greeter.Say/Never", &[]).await;
    sender.send_data(framed(JOHN), true).expect("sent");
    assert_eq!(next(&mut events).await.status, None);
    sender.send_reset(h2_v4::Reason::CANCEL);
    assert_eq!(next(&mut events).await.status, Some(499));
    // the deadline passes
    let late = raw.call("/greeter.Say/Never", &[("grpc-timeout", "50m")], framed(JOHN)).await;
    assert_eq!(late.code, Some(4));
    // the node goes in the middle of a stream
    let (response, mut sender) = raw.begin("/greeter.Say/Twice", &[]).await;
    sender.send_data(framed("1"), false).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("a part").expect("a part"), framed("2"));
    assert!(!greeter.stop(Duration::from_millis(100)).await, "cut off");
    let (_, trailers) = rest(&mut body).await;
    assert_eq!(trailers["grpc-status"], "14");
    // nobody listens there any more
    let (response, mut sender) = raw.begin("/greeter.Say/Hello", &[]).await;
    sender.send_data(framed(JOHN), true).expect("sent");
    let gone = ended(response).await;
    assert_eq!((gone.code, gone.message.as_str()), (Some(14), "no node of service `greeter` can be reached by rpc"));
    front.publisher.publish(Vec::new());
    let empty = Raw::connect(front.running.address()).await;
    let mut last = None;
    for _ in 0..200 {
        last = empty.call("/greeter.Say/Hello", &[], framed(JOHN)).await.code;
        if last == Some(12) {
            break;
        }
    }
    assert_eq!(last, Some(12));
    wait_for("the calls to end", || front.events.len() >= 8).await;
    front.end().await;
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_node_back() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    async fn endless(_: Context, _: u64) -> Result<impl Stream<Item = Result<String, ServiceError>>, ServiceError> {
        Ok(stream::repeat_with(|| {
            MADE.fetch_add(10_000, Ordering::Relaxed);
            Ok("x".repeat(10_000))
        }))
    }
    let (mut parts, mut events) = parts("greeter");
    parts.call_keys = vec!["the key".to_owned()].into();
    let greeter = start(Service::new("greeter").rpc_server_stream("Say.Endless", endless), parts);
    let front = Front::open(vec![serving("greeter", &greeter, &["greeter.Say"])], "");
    let raw = Raw::connect(front.running.address()).await;
    let (response, mut sender) = raw.begin("/greeter.Say/Endless", &[]).await;
    sender.send_data(framed("1"), true).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    // what is made stands still once every window and buffer on the way is full
    let (mut before, mut still) = (0, 0);
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = MADE.load(Ordering::Relaxed);
        still = if now == before && now > 65_535 { still + 1 } else { 0 };
        before = now;
        assert!(now < 4 << 20, "{now} bytes wait for one reader");
    }
    // and goes on when the reader does
    let mut got = 0;
    while got < 1 << 20 {
        let part = body.data().await.expect("a part").expect("a part");
        body.flow_control().release_capacity(part.len()).expect("a window");
        got += part.len();
    }
    assert!(MADE.load(Ordering::Relaxed) > before);
    drop((body, sender, raw));
    assert_eq!(next(&mut events).await.status, None);
    assert_eq!(next(&mut events).await.status, Some(499));
    front.end().await;
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

/// A caller may give up faster than a node can be connected to: what it began must not pile up.
#[tokio::test]
async fn a_call_that_is_given_up_ends_before_its_node_was_reached() {
    // a place for one connection, which is taken: no other gets an answer
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().expect("an address").as_socket().expect("an address");
    let _taken = std::net::TcpStream::connect(address).expect("the one place");
    let mut full = node("greeter", address);
    full.meta.tell_methods(Vec::new(), vec!["greeter.Say".to_owned()]);
    let mut front = Front::open(vec![full], "");
    let raw = Raw::connect(front.running.address()).await;
    let (_response, mut sender) = raw.begin("/greeter.Say/Hello", &[]).await;
    assert_eq!(next(&mut front.events).await.status, None);
    sender.send_reset(h2_v4::Reason::CANCEL);
    assert_eq!(next(&mut front.events).await.status, Some(499));
    front.end().await;
}

/// What tonic generated, of an author who did not think of everything.
#[derive(Clone)]
struct Panics;

impl tonic::server::NamedService for Panics {
    const NAME: &'static str = "bad.Panics";
}

impl tower_service::Service<http_v1::Request<tonic::body::Body>> for Panics {
    type Response = http_v1::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _task: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http_v1::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async { panic!("not thought of") })
    }
}

fn hasty(_ctx: Context, _numbers: Requests<u64>) -> impl Future<Output = Result<u64, ServiceError>> {
    assert!(std::hint::black_box(false), "not thought of");
    async { Ok(1) }
}

#[tokio::test]
async fn a_panic_ends_no_other_call_of_its_connection() {
    let (mut parts, _events) = parts("greeter");
    parts.call_keys = vec!["the key".to_owned()].into();
    let service = Service::new("greeter")
        .rpc("Say.Hello", hello)
        .rpc("Say.Never", never)
        .rpc_stream("Say.Twice", twice)
        .rpc_client_stream("Say.Hasty", hasty)
        .grpc(Panics);
    let greeter = start(service, parts);
    let raw = Raw::connect(greeter.address()).await;
    let key = ("call-service-key", "the key");
    let (response, mut sender) = raw.begin("/greeter.Say/Twice", &[key]).await;
    sender.send_data(framed("1"), false).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("a part").expect("a part"), framed("2"));
    let fields = [key, ("content-type", "application/grpc")];
    assert_eq!(raw.call("/bad.Panics/Call", &fields, framed("")).await.code, Some(13));
    assert_eq!(raw.call("/greeter.Say/Hasty", &[key], framed("1")).await.code, Some(13));
    sender.send_data(framed("2"), true).expect("sent");
    assert_eq!(body.data().await.expect("a part").expect("a part"), framed("4"));
    assert!(greeter.stop(Duration::from_secs(2)).await);
}
