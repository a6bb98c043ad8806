//! A handler that calls a method of another service.

use std::time::Duration;

use goms::{Context, Service, ServiceError};
use serde_json::value::RawValue;

use super::{Request, Response, node, start, table};
use crate::service::{ID, JSON, ask, listener, next, parts, start as start_http};

async fn hello(ctx: Context, message: Request) -> Result<Response, ServiceError> {
    assert_eq!(ctx.header("call-service-key"), None);
    if message.name.is_empty() {
        return Err(ServiceError::new(422, "`name` is empty"));
    }
    Ok(Response { msg: format!("Hello {}", message.name) })
}

async fn relay(ctx: Context, body: Box<RawValue>) -> Result<Box<RawValue>, ServiceError> {
    let method = ctx.param("method").unwrap_or_else(|| "Say.Hello".to_owned());
    Ok(ctx.rpc("greeter", &method, &body).await?)
}

#[tokio::test]
async fn a_handler_calls_a_method_of_another_service() {
    let (mut greeter_parts, mut greeter_events) = parts("greeter");
    greeter_parts.call_keys = vec!["old".to_owned(), "new".to_owned()].into();
    let greeter = start(Service::new("greeter").rpc("Say.Hello", hello), greeter_parts);
    let dead = listener().local_addr().unwrap();
    let (table, shutdown) = table(vec![node("greeter", greeter.address()), node("greeter", dead)]);
    let (mut front_parts, mut front_events) = parts("front");
    front_parts.call_keys = vec!["new".to_owned()].into();
    front_parts.calls = Some(table);
    let front = start_http(Service::new("front").route("/relay", relay), front_parts);

    let headers = [JSON, ("X-Request-Id", ID), ("Call-Service-Key", "new")];
    let ask = |method: &str, body: &str| {
        let answer = ask(front.address(), "POST", &format!("/relay?method={method}"), &headers, body);
        (answer.status, answer.body)
    };
    // two nodes in turn, one of which is not there: every call gets through, by any of the method's names
    for method in ["Say.Hello", "greeter.Say.Hello", "/greeter.Say/Hello", "/Say/Hello", "/any.package.Say/Hello"] {
        assert_eq!(ask(method, r#"{"name":"John"}"#), (200, r#"{"msg":"Hello John"}"#.to_owned()), "{method}");
    }
    // one trace: the callee's parent is the caller's span
    let (caller, callee) = (next(&mut front_events).await, next(&mut greeter_events).await);
    assert_eq!((caller.request.caller.as_deref(), callee.request.caller.as_deref()), (Some("gateway"), Some("front")));
    assert_eq!(callee.context.request_id.to_string(), ID);
    assert_eq!(callee.context.trace_id, caller.context.trace_id);
    assert_eq!(callee.context.parent_id, Some(caller.context.span_id));
    assert_eq!(callee.request.head.url(), "/greeter.Say/Hello");
    assert_eq!(next(&mut greeter_events).await.status, Some(200));

    let refused = |method: &str, body: &str| {
        let (status, body) = ask(method, body);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, body["msg"].as_str().unwrap().to_owned())
    };
    assert_eq!(refused("Say.Hello", r#"{"name":""}"#), (422, "`name` is empty".to_owned()));
    let unfit = "the body does not fit at `name`: invalid type: integer `7`, expected a string at line 1 column 9";
    assert_eq!(refused("Say.Hello", r#"{"name":7}"#), (400, unfit.to_owned()));
    let (status, why) = refused("Say.Bye", "{}");
    assert_eq!(status, 502);
    assert!(why.ends_with("no method `/greeter.Say/Bye` in service `greeter`; it has Say.Hello"), "{why}");
    assert_eq!(refused("Hello", "{}").0, 500);

    assert!(front.stop(Duration::from_secs(2)).await);
    assert!(greeter.stop(Duration::from_secs(2)).await);
    shutdown.begin();
    assert!(shutdown.finished(Duration::from_secs(1)).await);
}
