//! Calls through a gateway's RPC port.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use futures_util::{Stream, StreamExt, stream};
use goms::balance::Balancer;
use goms::cli::Cli;
use goms::config::Config;
use goms::gateway::{self, Live};
use goms::listener::Tls;
use goms::metrics::{Load, Metrics};
use goms::registry::Publisher;
use goms::rpc::generated::GrpcService;
use goms::service::Running;
use goms::shutdown::Shutdown;
use goms::trace::{self, Event, Recorder};
use goms::{Context, Requests, Service, ServiceError};
use tokio::sync::mpsc::Receiver;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::raw::{Raw, framed, rest};
use super::{Request, Response, node, start};
use crate::gateway::trace_settings;
use crate::service::{RUNTIME, listener, next, parts};
use crate::support::wait_for;

/// A gateway's RPC port before the nodes of `publisher`.
pub struct Front {
    pub running: Running,
    pub publisher: Publisher,
    pub events: Receiver<Event>,
    pub metrics: Metrics,
    background: Shutdown,
}

impl Front {
    /// With this config.
    pub fn open(nodes: Vec<goms::registry::Node>, text: &str) -> Self {
        let cli = Cli::parse_from(["goms", "gateway"]);
        let text = format!("callServiceKey: the key\n{text}");
        let config = Config::parse("config.yml", &text, &cli.common, &cli.node());
        let settings = config.unwrap_or_else(|faults| panic!("{faults}")).gateway;
        let (background, metrics, publisher) = (Shutdown::new(), Metrics::new(), Publisher::new());
        publisher.publish(nodes);
        let _runtime = RUNTIME.enter();
        let balancer = Balancer::start(publisher.subscribe(), settings.balance(), &metrics, &background);
        let (recorder, events) = Recorder::channel(&trace_settings(), &metrics);
        let parts = gateway::Parts {
            broker: None,
            live: Live::new(settings, &metrics),
            balancer,
            catalog: publisher.subscribe(),
            recorder,
            origin: Arc::new(trace::Origin {
                service_name: "gateway".into(),
                service_id: "goms_gateway_127.0.0.1:1_127.0.0.1:2".into(),
                project_name: "goms".into(),
                node: "127.0.0.1:1_127.0.0.1:2".into(),
            }),
            metrics: metrics.clone(),
            load: Load::default(),
            workers: 2,
        };
        let (_reporter, health) = tonic_health::server::health_reporter();
        let own = ("grpc.health.v1.Health", Arc::new(health) as Arc<dyn GrpcService>);
        let tls = parts.live.settings().tls.filter(|tls| tls.rpc).map(|tls| Tls::open(tls, &metrics).expect("TLS"));
        let running = gateway::serve_rpc(listener(), (parts, tls), own).expect("a gateway");
        Self { running, publisher, events, metrics, background }
    }

    pub async fn end(self) {
        assert!(self.running.stop(Duration::from_secs(5)).await);
        self.background.begin();
        assert!(self.background.finished(Duration::from_secs(2)).await);
    }
}

pub(super) async fn hello(ctx: Context, message: Request) -> Result<Response, ServiceError> {
    if message.name.is_empty() {
        return Err(ServiceError::new(422, "`name` is empty"));
    }
    let said = ctx.header("x-said").unwrap_or_default();
    for hidden in ["goms-service", "call-service-key", "content-length", "accept-charset"] {
        assert_eq!(ctx.header(hidden), None, "{hidden}");
    }
    assert_eq!(ctx.caller(), "127.0.0.1");
    Ok(Response { msg: format!("Hello {}{said}", message.name) })
}

async fn count(_ctx: Context, to: u64) -> Result<impl Stream<Item = Result<u64, ServiceError>>, ServiceError> {
    let last = if to == 13 { Some(Err(ServiceError::new(409, "thirteen"))) } else { None };
    Ok(stream::iter((1..=to).map(Ok).chain(last)))
}

pub(super) async fn twice(
    _: Context,
    numbers: Requests<u64>,
) -> Result<impl Stream<Item = Result<u64, ServiceError>>, ServiceError> {
    Ok(numbers.map(|number| number.map(|number| number * 2)))
}

pub(super) async fn never(_ctx: Context, _message: Request) -> Result<Response, ServiceError> {
    std::future::pending().await
}

pub(super) fn greeter() -> (Running, Receiver<Event>) {
    let (mut parts, events) = parts("greeter");
    parts.call_keys = vec!["the key".to_owned()].into();
    let service = Service::new("greeter")
        .rpc("Say.Hello", hello)
        .rpc("Say.Never", never)
        .rpc_server_stream("Say.Count", count)
        .rpc_stream("Say.Twice", twice);
    (start(service, parts), events)
}

pub(super) const JOHN: &str = r#"{"name":"John"}"#;

/// A node of this service that serves these names.
pub(super) fn serving(service: &str, at: &Running, names: &[&str]) -> goms::registry::Node {
    let mut node = node(service, at.address());
    node.meta.tell_methods(Vec::new(), names.iter().map(|name| (*name).to_owned()).collect());
    node
}

#[tokio::test]
async fn calls_of_every_kind_pass() {
    let (greeter, mut greeter_events) = greeter();
    let mut front = Front::open(vec![serving("greeter", &greeter, &["greeter.Say"])], "");
    let raw = Raw::connect(front.running.address()).await;
    let fields =
        [("x-said", "!"), ("content-length", "5"), ("call-service-key", "faked"), ("x-forwarded-for", "6.6.6.6")];
    let answer = raw.call("/greeter.Say/Hello", &fields, framed(JOHN)).await;
    assert_eq!((answer.code, answer.body), (Some(0), framed(r#"{"msg":"Hello John!"}"#)));
    // one trace of four events
    let began = next(&mut front.events).await;
    let (inner, inner_end) = (next(&mut greeter_events).await, next(&mut greeter_events).await);
    let over = next(&mut front.events).await;
    assert_eq!((over.status, inner_end.status), (Some(200), Some(200)));
    assert_eq!(inner.context.trace_id, began.context.trace_id);
    assert_eq!(inner.context.parent_id, Some(began.context.span_id));
    assert_eq!(inner.request.caller.as_deref(), Some("gateway"));
    // errors keep their trailers
    let refused = raw.call("/greeter.Say/Hello", &[], framed(r#"{"name":""}"#)).await;
    assert_eq!((refused.code, refused.message.as_str()), (Some(3), "`name` is empty"));
    let counted = raw.call("/greeter.Say/Count", &[], framed("3")).await;
    assert_eq!((counted.code, counted.body), (Some(0), [framed("1"), framed("2"), framed("3")].concat().into()));
    let broken = raw.call("/greeter.Say/Count", &[], framed("13")).await;
    assert_eq!((broken.code, broken.message.as_str(), broken.body.len()), (Some(6), "thirteen", 13 * 6 + 4));
    // both ways, each answer before the next message
    let (response, mut sender) = raw.begin("/greeter.Say/Twice", &[]).await;
    let mut body = response.await.expect("an answer").into_body();
    for number in 1..100 {
        sender.send_data(framed(number.to_string()), false).expect("sent");
        let part = body.data().await.expect("a part").expect("a part");
        body.flow_control().release_capacity(part.len()).expect("a window");
        assert_eq!(part, framed((number * 2).to_string()));
    }
    sender.send_data(Bytes::new(), true).expect("sent");
    assert_eq!(rest(&mut body).await.1["grpc-status"], "0");
    let text = front.metrics.render();
    assert!(text.contains(r#"goms_requests_total{action="rpc",service="greeter",status="2xx"} 3"#), "{text}");
    front.end().await;
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_call_finds_its_service() {
    let (greeter, _events) = greeter();
    let nodes = vec![
        serving("greeter", &greeter, &["greeter.Say", "shared.Say"]),
        serving("other", &greeter, &["shared.Say"]),
        node("go.micro.srv.old", greeter.address()),
    ];
    let front = Front::open(
        nodes,
        "routes: [{ match: { path: '/routed.Say/*' }, service: greeter }, { match: { path: '/*' }, service: web }]",
    );
    let raw = Raw::connect(front.running.address()).await;
    let to = |service: &'static str| vec![("goms-service", service)];
    for (path, fields, code, message) in [
        ("/greeter.Say/Hello", Vec::new(), 0, ""),
        ("/go.micro.srv.old.Say/Hello", Vec::new(), 0, ""),
        ("/routed.Say/Hello", Vec::new(), 0, ""),
        ("/shared.Say/Hello", to("other"), 0, ""),
        ("/Say/Hello", to("greeter"), 0, ""),
        (
            "/shared.Say/Hello",
            Vec::new(),
            9,
            "`shared.Say` is served by greeter, other; name one in the header `goms-service`, or write a route for the path `/shared.Say/*`",
        ),
        ("/nobody.Say/Hello", Vec::new(), 12, "nobody serves `nobody.Say`; there is greeter.Say, shared.Say"),
        ("/Hello", Vec::new(), 12, "nobody serves ``; there is greeter.Say, shared.Say"),
        ("/x.Say/Hello", to("nobody"), 12, "no service `nobody` takes rpc; there is go.micro.srv.old, greeter, other"),
        (
            "/greeter.Say/Bye",
            Vec::new(),
            12,
            "no method `/greeter.Say/Bye` in service `greeter`; it has Say.Count, Say.Hello, Say.Never, Say.Twice",
        ),
    ] {
        let answer = raw.call(path, &fields, framed(JOHN)).await;
        assert_eq!((answer.code, answer.message.as_str()), (Some(code), message), "{path} {fields:?}");
    }
    let not_grpc = raw.call("/greeter.Say/Hello", &[("content-type", "application/json")], Bytes::from("{}")).await;
    assert_eq!(not_grpc.http, 415);
    front.end().await;
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn who_may_not_call_is_told() {
    let (greeter, _events) = greeter();
    let front = Front::open(
        vec![serving("greeter", &greeter, &["greeter.Say"])],
        "auth: { staff: { apiKeys: { keys: { ann: sixteen-or-more-letters } } } }\ndefaults: { auth: staff }",
    );
    let raw = Raw::connect(front.running.address()).await;
    let code = async |fields: &[(&str, &str)]| raw.call("/greeter.Say/Hello", fields, framed(JOHN)).await.code;
    assert_eq!(code(&[]).await, Some(16));
    assert_eq!(code(&[("x-api-key", "wrong")]).await, Some(16));
    assert_eq!(code(&[("x-api-key", "sixteen-or-more-letters")]).await, Some(0));
    front.end().await;
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn services_of_tonic_pass_with_a_client_of_tonic() {
    let (parts, _events) = parts("health");
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("thing", ServingStatus::Serving).await;
    let service = Service::new("health").grpc(health);
    assert_eq!(service.rpc_services(), ["grpc.health.v1.Health"]);
    let node_of = start(service, parts);
    let front = Front::open(vec![serving("health", &node_of, &["grpc.health.v1.Health"])], "");
    let at = format!("http://{}", front.running.address());
    let channel = tonic::transport::Endpoint::from_shared(at).expect("an address").connect().await.expect("a gateway");
    let check = |service: &str, to: Option<&'static str>| {
        let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        if let Some(to) = to {
            request.metadata_mut().insert("goms-service", to.parse().expect("a name"));
        }
        request
    };
    // the gateway's own, and the node's
    let mut client = HealthClient::new(channel);
    assert_eq!(client.check(check("thing", None)).await.expect_err("unknown").code(), tonic::Code::NotFound);
    let answer = client.check(check("thing", Some("health"))).await.expect("an answer");
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving.into());
    // a stream that goes on
    let mut watch = client.watch(check("thing", Some("health"))).await.expect("a stream").into_inner();
    assert_eq!(watch.message().await.expect("a message").expect("a message").status, ServingStatus::Serving as i32);
    reporter.set_service_status("thing", ServingStatus::NotServing).await;
    assert_eq!(watch.message().await.expect("a message").expect("a message").status, ServingStatus::NotServing as i32);
    drop((watch, client));
    front.end().await;
    assert!(node_of.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_calls() {
    async fn caller(ctx: Context, _: Request) -> Result<String, ServiceError> {
        Ok(ctx.header("x-forwarded-for").unwrap_or_default().to_owned())
    }
    let node_of = start(Service::new("greeter").rpc("Say.Caller", caller), parts("greeter").0);
    for (config, told) in [("", r#""127.0.0.1""#), ("trustedProxies: [127.0.0.1]", r#""192.0.2.7, 127.0.0.1""#)] {
        let mut front = Front::open(vec![node("greeter", node_of.address())], config);
        let raw = Raw::connect(front.running.address()).await;
        let answer = raw.call("/greeter.Say/Caller", &[("x-forwarded-for", "192.0.2.7")], framed(JOHN)).await;
        assert_eq!((answer.code, answer.body), (Some(0), framed(told)), "{config}");
        let client = if config.is_empty() { "127.0.0.1" } else { "192.0.2.7" };
        assert_eq!(next(&mut front.events).await.request.head.client_ip(), client);
        front.end().await;
    }
    assert!(node_of.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn clients_learn_services_and_messages_by_reflection() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let (_reporter, health) = tonic_health::server::health_reporter();
    let service = Service::new("health").grpc(health);
    assert!(service.clone().reflection(b"junk").is_err());
    let service = service.reflection(tonic_health::pb::FILE_DESCRIPTOR_SET).expect("descriptors");
    let names = service.rpc_services();
    let node_of = start(service, parts("health").0);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let front = Front::open(vec![serving("health", &node_of, &names)], "");
    let at = format!("http://{}", front.running.address());
    let channel = tonic::transport::Endpoint::from_shared(at).expect("an address").connect().await.expect("a gateway");
    let asked = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("grpc.health.v1.Health".to_owned()),
    ];
    let asked = asked.map(|asked| ServerReflectionRequest { host: String::new(), message_request: Some(asked) });
    let answers = ServerReflectionClient::new(channel).server_reflection_info(stream::iter(asked)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let mut told = async || {
        let answer: ServerReflectionResponse = answers.message().await.expect("an answer").expect("an answer");
        answer.message_response
    };
    let Some(MessageResponse::ListServicesResponse(list)) = told().await else { panic!("no list") };
    let listed: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(listed.contains(&"grpc.health.v1.Health"), "{listed:?}");
    assert!(matches!(told().await, Some(MessageResponse::FileDescriptorResponse(_))));
    drop(answers);
    front.end().await;
    assert!(node_of.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_routes_terms_hold_however_its_method_is_named() {
    let (greeter, _events) = greeter();
    let front = Front::open(
        vec![serving("greeter", &greeter, &["acme.v1.Say"])],
        "auth: { staff: { apiKeys: { keys: { ann: sixteen-or-more-letters } } } }\nroutes: [{ match: { path: '/acme.v1.Say/*' }, service: greeter, auth: staff }]",
    );
    let raw = Raw::connect(front.running.address()).await;
    let named = [("goms-service", "greeter")];
    let key = [("goms-service", "greeter"), ("x-api-key", "sixteen-or-more-letters")];
    for (path, fields, code) in [
        ("/acme.v1.Say/Hello", &[][..], 16),
        ("/acme.v1.Say/Hello", &named, 16),
        ("/greeter.Say/Hello", &[], 16),
        ("/other.Say/Hello", &named, 16),
        ("/Say/Hello", &named, 16),
        ("/Say.Hello", &named, 12),
        ("/acme.v1.Say.Hello", &named, 12),
        ("/acme.v1.Say/Hello", &key[1..], 0),
        ("/other.Say/Hello", &key, 0),
    ] {
        assert_eq!(raw.call(path, fields, framed(JOHN)).await.code, Some(code), "{path} {fields:?}");
    }
    front.end().await;
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

fn mark(event: &Event) -> Option<String> {
    let mut headers = event.request.head.headers();
    headers.find(|(name, _)| *name == "X-Goms-Fault").map(|(_, value)| value.to_owned())
}

#[tokio::test]
async fn calls_fail_on_purpose_for_who_asks() {
    let (greeter, mut told) = greeter();
    let config = |faults: &str| {
        format!("upstreams: {{ greeter: {{ faults: {faults} }} }}\nservices: {{ greeter: {{ a: /a }} }}")
    };
    let nodes = || vec![serving("greeter", &greeter, &["greeter.Say"])];
    let mut front = Front::open(nodes(), &config("{ abort: 503, delay: 1ms, headers: { x-fault: '*' } }"));
    let raw = Raw::connect(front.running.address()).await;
    for (fields, code) in [(&[("x-fault", "1")][..], Some(14)), (&[], Some(0))] {
        let answer = raw.call("/greeter.Say/Hello", fields, framed(JOHN)).await;
        assert_eq!(answer.code, code, "{}", answer.message);
        let (_start, end) = (next(&mut front.events).await, next(&mut front.events).await);
        let told = (code == Some(14)).then(|| "delay=1ms, abort=503".to_owned());
        assert_eq!((mark(&end), answer.fault), (told.clone(), told));
    }
    assert_eq!(next(&mut told).await.status, None, "the second call reached the node");
    front.end().await;
    let mut front = Front::open(nodes(), &config("{ delay: 1m, everyone: true }"));
    let raw = Raw::connect(front.running.address()).await;
    let (_response, mut sender) = raw.begin("/greeter.Say/Hello", &[]).await;
    let counted = r#"goms_faults_injected_total{action="rpc",fault="delay",service="greeter"} 1"#;
    let metrics = front.metrics.clone();
    wait_for("the call to be delayed", || metrics.render().contains(counted)).await;
    sender.send_reset(h2_v4::Reason::CANCEL); // who does not wait
    let (_start, end) = (next(&mut front.events).await, next(&mut front.events).await);
    assert_eq!((end.status, mark(&end).as_deref()), (Some(499), Some("delay=1m")));
    let answer = raw.call("/greeter.Say/Hello", &[("grpc-timeout", "50m")], framed(JOHN)).await;
    assert_eq!((answer.code, answer.fault.as_deref()), (Some(4), Some("delay=1m")), "{}", answer.message);
    front.end().await;
    assert!(greeter.stop(Duration::from_secs(2)).await);
}
