//! A handler that calls another service.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use goms::balance::Balancer;
use goms::metrics::Metrics;
use goms::registry::{HostPort, Node, NodeId, NodeMeta, Publisher};
use goms::service::{CallTable, CalledAction, Running};
use goms::shutdown::Shutdown;
use goms::trace::Event;
use goms::upstream::Policy;
use goms::{Context, Service, ServiceError};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Receiver;

use super::{ID, JSON, ask, next, parts, start};

#[derive(Serialize, Deserialize)]
struct Sum {
    numbers: Vec<i64>,
    #[serde(default)]
    sum: i64,
}

async fn sum(ctx: Context, mut body: Sum) -> Result<Sum, ServiceError> {
    assert_eq!(ctx.header("call-service-key"), None);
    if body.numbers.is_empty() {
        return Err(ServiceError::new(422, "`numbers` is empty"));
    }
    body.sum = body.numbers.iter().sum();
    Ok(body)
}

async fn twice(ctx: Context, body: Sum) -> Result<i64, ServiceError> {
    let action = ctx.param("action").unwrap_or_else(|| "math/sum".to_owned());
    let answer: Sum = ctx.call(&action, &body).await?;
    Ok(answer.sum * 2)
}

struct Pair {
    math: Running,
    front: Running,
    math_events: Receiver<Event>,
    front_events: Receiver<Event>,
    shutdown: Shutdown,
}

/// `math` behind a key, and `front`, which calls it; the catalog also names a node of `math` that is not there.
fn pair() -> Pair {
    let (mut math_parts, math_events) = parts("math");
    math_parts.call_keys = vec!["old".to_owned(), "new".to_owned()].into();
    let math = start(Service::new("math").route("/sum", sum), math_parts);

    let dead = super::listener().local_addr().unwrap();
    let node = |address: std::net::SocketAddr| {
        let port = HostPort::new(address.ip(), address.port());
        Node::new(NodeId { service: "math".to_owned(), rpc: port, http: port }, NodeMeta::default())
    };
    let registry = Publisher::new();
    registry.publish(vec![node(math.address()), node(dead)]);
    let shutdown = Shutdown::new();
    let balancer = Balancer::start(registry.subscribe(), HashMap::new(), &Metrics::new(), &shutdown);

    let action = |path: &str| CalledAction { path: path.to_owned(), policy: Policy::default(), fallback: None };
    let math_actions = BTreeMap::from([("sum".to_owned(), action("/sum")), ("gone".to_owned(), action("/gone"))]);
    let empty = BTreeMap::from([("any".to_owned(), action("/any"))]);
    let actions = BTreeMap::from([("math".to_owned(), math_actions), ("empty".to_owned(), empty)]);
    let (mut front_parts, front_events) = parts("front");
    front_parts.call_keys = vec!["new".to_owned()].into();
    front_parts.calls = Some(CallTable {
        balancer,
        actions: Arc::new(actions),
        answer_bytes: 1 << 20,
        broker: None,
        usual: Policy::default(),
    });
    let front = start(Service::new("front").route("/twice", twice), front_parts);
    Pair { math, front, math_events, front_events, shutdown }
}

#[tokio::test]
async fn a_handler_calls_another_service() {
    let mut pair = pair();
    let headers = [JSON, ("X-Request-Id", ID), ("Call-Service-Key", "new")];
    // two nodes in turn, one of which is not there: every call gets through
    for _ in 0..6 {
        let answer = ask(pair.front.address(), "POST", "/twice", &headers, r#"{"numbers":[1,2,3]}"#);
        assert_eq!((answer.status, answer.body.as_str()), (200, "12"));
    }
    // one trace: the callee's parent is the caller's span
    let (caller, callee) = (next(&mut pair.front_events).await, next(&mut pair.math_events).await);
    // behind a guard nobody but a gateway calls without saying who
    assert_eq!((caller.request.caller.as_deref(), callee.request.caller.as_deref()), (Some("gateway"), Some("front")));
    assert_eq!(callee.context.request_id.to_string(), ID);
    assert_eq!(callee.context.trace_id, caller.context.trace_id);
    assert_eq!(callee.context.parent_id, Some(caller.context.span_id));
    assert_eq!((callee.request.head.url(), &callee.request.body[..]), ("/sum", &br#"{"numbers":[1,2,3],"sum":0}"#[..]));
    end(pair).await;
}

#[tokio::test]
async fn a_call_that_fails_says_why() {
    let pair = pair();
    let ask = |action: &str, body: &str| {
        let headers = [JSON, ("Call-Service-Key", "new")];
        let answer = ask(pair.front.address(), "POST", &format!("/twice?action={action}"), &headers, body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["msg"].as_str().unwrap().to_owned())
    };
    assert_eq!(ask("math/sum", r#"{"numbers":[]}"#), (422, "`numbers` is empty".to_owned()));
    assert_eq!(
        ask("math/gone", r#"{"numbers":[]}"#),
        (404, "no path `/gone` in service `math`; it has /sum".to_owned())
    );
    let unknown = |action: &str, reason: &str| {
        assert_eq!(ask(action, r#"{"numbers":[]}"#), (500, format!("cannot call `{action}`: {reason}")));
    };
    unknown("math/smu", "no action `smu` in service `math`; it has gone, sum");
    unknown("meth/sum", "no service `meth` is configured; there is empty, math");
    unknown("math", "name it as `service/action`");
    let (status, msg) = ask("empty/any", r#"{"numbers":[]}"#);
    assert_eq!(status, 503, "{msg}");
    end(pair).await;
}

async fn end(pair: Pair) {
    assert!(pair.front.stop(Duration::from_secs(1)).await);
    assert!(pair.math.stop(Duration::from_secs(1)).await);
    pair.shutdown.begin();
    assert!(pair.shutdown.finished(Duration::from_secs(1)).await);
}
