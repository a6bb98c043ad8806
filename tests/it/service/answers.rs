//! What callers get, byte for byte.

use goms::service::echo_service;
use goms::trace::EventKind;
use goms::{Context, Service, ServiceError};
use serde::{Deserialize, Serialize};

use super::{Answer, Client, ID, JSON, ask, next, parts, start};

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

fn failure(answer: &Answer) -> (u16, String) {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["status"], false, "{answer:?}");
    assert_eq!(body["code"], answer.status, "{answer:?}");
    assert_eq!(body["requestId"].as_str(), answer.header("X-Request-Id"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    (answer.status, body["msg"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_echo_is_that_of_the_originals() {
    let (mut parts, _events) = parts("user");
    parts.call_keys = vec!["secret".to_owned()].into();
    let running = start(echo_service("user", ["/login", "/register"]), parts);
    let mut client = Client::connect(running.address());
    let key = ("call-service-key", "secret");

    let body = r#"{"name":"goms","big":12345678901234567890.10, "x" : [1e400]}"#;
    let answer =
        client.send("POST", "/login?a=1&b=3", &[JSON, ("x-request-id", ID), key, ("X-A", "1"), ("x-a", "2")], body);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("X-Request-Id"), Some(ID));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let headers = format!(
        r#"{{"Content-Length":"{}","Content-Type":"application/json","X-A":"1","X-Request-Id":"{ID}"}}"#,
        body.len()
    );
    assert_eq!(
        answer.body,
        format!(
            r#"{{"code":0,"data":{{"body":{body},"headers":{headers},"method":"POST","urlParam":"?a=1&b=3"}},"msg":"success"}}"#
        )
    );

    let answer = client.send("GET", "/register", &[key], "");
    assert_eq!(
        answer.body,
        r#"{"code":0,"data":{"body":{},"headers":{},"method":"GET","urlParam":""},"msg":"success"}"#
    );
    assert_eq!(answer.header("X-Request-Id").map(str::len), Some(36));

    let form = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
    let answer = client.send("PUT", "/login", &[form, key], "a=1&b=%26+x&a=2");
    assert!(
        answer.body.starts_with(r#"{"code":0,"data":{"body":{"a":["1","2"],"b":"& x"},"headers""#),
        "{}",
        answer.body
    );
    assert!(running.stop(SECOND).await);
}

#[tokio::test]
async fn only_callers_with_the_key_get_in() {
    let (mut parts, mut events) = parts("user");
    parts.call_keys = vec!["new".to_owned(), "old".to_owned()].into();
    let metrics = parts.metrics.clone();
    let running = start(echo_service("user", ["/login"]), parts);
    let status = |headers: &[(&str, &str)]| {
        let answer = ask(running.address(), "GET", "/login", headers, "");
        if answer.status == 403 {
            assert!(failure(&answer).1.contains("Call-Service-Key"));
        }
        assert!(!answer.body.to_ascii_lowercase().contains("call-service-key\":"), "{}", answer.body);
        answer.status
    };
    let key = "Call-Service-Key";
    assert_eq!(status(&[]), 403);
    assert_eq!(status(&[(key, "wrong")]), 403);
    assert_eq!(status(&[(key, "")]), 403);
    assert_eq!(status(&[(key, "ne")]), 403);
    assert_eq!(status(&[(key, "new")]), 200);
    assert_eq!(status(&[("call-service-key", "old")]), 200);
    assert_eq!(status(&[(key, "new"), (key, "wrong")]), 403);
    assert_eq!(status(&[(key, "wrong"), (key, "new")]), 403);
    assert_eq!(status(&[(key, "new"), (key, "old")]), 403);

    // the key is in no event, and a refused request has none
    for _ in 0..4 {
        let event = next(&mut events).await;
        assert!(event.request.head.headers().all(|(name, _)| name != key), "{event:?}");
    }
    assert!(events.try_recv().is_err());
    let shown = metrics.render();
    let counted = |class: &str, count: u32| {
        shown.contains(&format!(
            "goms_service_requests_total{{node=\"127.0.0.1:1_127.0.0.1:2\",service=\"user\",status=\"{class}\"}} {count}\n"
        ))
    };
    assert!(counted("4xx", 7) && counted("2xx", 2), "{shown}");
    assert!(shown.contains("goms_service_in_flight{node=\"127.0.0.1:1_127.0.0.1:2\",service=\"user\"} 0\n"), "{shown}");
    assert!(running.stop(SECOND).await);
}

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Serialize)]
struct Placed {
    text: String,
}

async fn place(ctx: Context, order: Order) -> Result<Placed, ServiceError> {
    if order.count == 0 {
        return Err(ServiceError::new(422, "`count` is 0"));
    }
    let held = std::rc::Rc::new(order.count); // handlers may hold what is not Send
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    let query = ctx.param("who").unwrap_or_default();
    Ok(Placed { text: format!("{held} {} for {query} at {} by {}", order.item, ctx.path(), ctx.caller()) })
}

#[tokio::test]
async fn typed_handlers_and_their_errors() {
    let (parts, mut events) = parts("order");
    let running = start(Service::new("order").route("submit", place), parts);
    let mut client = Client::connect(running.address());
    let answer = client.send("POST", "/submit?who=a%20b", &[JSON], r#"{"item":"pen","count":2}"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"text":"2 pen for a b at /submit by 127.0.0.1"}"#));
    // without a guard anybody could set it, so it is not believed
    let forged = client.send("POST", "/submit", &[JSON, ("X-Forwarded-For", "9.9.9.9")], r#"{"item":"pen","count":2}"#);
    assert!(forged.body.ends_with("by 127.0.0.1\"}"), "{}", forged.body);

    let mut fails = |headers: &[(&str, &str)], body: &str| failure(&client.send("POST", "/submit", headers, body));
    assert_eq!(fails(&[JSON], r#"{"item":"pen","count":0}"#), (422, "`count` is 0".to_owned()));
    assert_eq!(
        fails(&[JSON], r#"{"item":"pen","count":-1}"#),
        (
            400,
            "the body does not fit at `count`: invalid value: integer `-1`, expected u32 at line 1 column 24"
                .to_owned()
        )
    );
    assert_eq!(fails(&[], ""), (400, "the body does not fit: missing field `item` at line 1 column 2".to_owned()));
    assert_eq!(
        fails(&[JSON], r#"{"item":"#),
        (400, "the body is not JSON: EOF while parsing a value at line 1 column 8".to_owned())
    );
    let (status, msg) = fails(&[("Content-Type", "image/png")], "abc");
    assert_eq!(status, 415);
    assert!(msg.contains("image/png"), "{msg}");
    assert_eq!(
        failure(&client.send("GET", "/sumbit", &[], "")),
        (404, "no path `/sumbit` in service `order`; it has /submit".to_owned())
    );
    assert!(running.stop(SECOND).await);
    let mut statuses = Vec::new();
    while let Ok(event) = events.try_recv() {
        statuses.extend(event.status);
    }
    assert_eq!(statuses, [200, 200, 422, 400, 400, 400, 415, 404]);
}

#[tokio::test]
async fn a_guarded_node_believes_the_gateway_about_the_client() {
    let (mut parts, mut events) = parts("order");
    parts.call_keys = vec!["k".to_owned()].into();
    let running = start(Service::new("order").route("/submit", place), parts);
    let headers = [JSON, ("Call-Service-Key", "k"), ("X-Forwarded-For", "9.9.9.9, 10.0.0.7")];
    let answer = ask(running.address(), "POST", "/submit", &headers, r#"{"item":"pen","count":1}"#);
    assert!(answer.body.ends_with("by 10.0.0.7\"}"), "{}", answer.body);
    assert_eq!(next(&mut events).await.request.head.client_ip(), "10.0.0.7");
    assert!(running.stop(SECOND).await);
}

async fn panics(_: Context, body: serde_json::Value) -> Result<(), ServiceError> {
    tokio::task::yield_now().await;
    panic!("as asked: {body}");
}

fn panics_at_once(_: Context, _: serde_json::Value) -> std::future::Ready<Result<(), ServiceError>> {
    panic!("before the first await");
}

#[tokio::test]
async fn a_panic_is_one_answer_of_500() {
    let (parts, mut events) = parts("user");
    let service = Service::new("user").route("/panic", panics).route("/now", panics_at_once).fallback(place);
    let running = start(service, parts);
    let mut client = Client::connect(running.address());
    for path in ["/panic", "/now", "/panic"] {
        let (status, msg) = failure(&client.send("POST", path, &[JSON], "{}"));
        assert_eq!((status, msg.as_str()), (500, "the handler failed; its log has the reason"));
        assert_eq!(next(&mut events).await.kind, EventKind::ServiceStart);
        assert_eq!(next(&mut events).await.status, Some(500));
    }
    // the same connection, the same (only) worker
    assert_eq!(client.send("POST", "/other", &[JSON], r#"{"item":"pen","count":1}"#).status, 200);
    assert!(running.stop(SECOND).await);
}

async fn same(_: Context, body: serde_json::Value) -> Result<serde_json::Value, ServiceError> {
    Ok(body)
}

#[tokio::test]
async fn json_that_would_exhaust_the_stack_is_400() {
    let (parts, _events) = parts("user");
    let running = start(Service::new("user").route("/same", same), parts);
    let mut client = Client::connect(running.address());
    let hostile = crate::support::json::nested_in_strings();
    for body in [&hostile, r#"{"a":{"\u0024serde_json::private::RawValue":"1"}}"#] {
        let (status, msg) = failure(&client.send("POST", "/same", &[JSON], body));
        assert_eq!(status, 400);
        assert!(msg.contains("`$serde_json::private::RawValue` cannot be taken"), "{msg}");
    }
    let answer = client.send("POST", "/same", &[JSON], r#"{"RawValue":"\u0041\n"}"#);
    assert_eq!((answer.status, answer.body.contains(r#"{"RawValue":"A\n"}"#)), (200, true), "{answer:?}");
    assert!(running.stop(SECOND).await);
}

#[tokio::test]
async fn bodies_over_the_limit_are_413() {
    let (mut parts, _events) = parts("user");
    parts.limits.body_bytes = 100;
    let running = start(echo_service("user", ["/login"]), parts);
    let long = format!("\"{}\"", "x".repeat(99));
    let answer = ask(running.address(), "POST", "/login", &[JSON], &long);
    assert_eq!(failure(&answer), (413, "the body is longer than 100 bytes; send less at once".to_owned()));
    let fits = &long[..99].replace('x', "y");
    assert_eq!(ask(running.address(), "POST", "/login", &[JSON], &format!("{fits}\"")).status, 200);
    let mut client = Client::connect(running.address());
    client.write("POST /login HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write(&format!("65\r\n{long}\r\n"));
    assert_eq!(client.answer().status, 413);
    assert!(running.stop(SECOND).await);
}

#[tokio::test]
async fn a_request_is_traced_from_start_to_end() {
    let (parts, mut events) = parts("user");
    let running = start(echo_service("user", ["/login"]), parts);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [JSON, ("X-Request-Id", ID), ("traceparent", parent), ("Call-Service-Key", "leaked")];
    assert_eq!(ask(running.address(), "POST", "/login?a=1", &headers, r#"{"a":1}"#).status, 200);
    let (begin, end) = (next(&mut events).await, next(&mut events).await);
    assert_eq!((begin.kind, end.kind), (EventKind::ServiceStart, EventKind::ServiceEnd));
    assert_eq!(begin.context, end.context);
    assert_eq!(begin.context.request_id.to_string(), ID);
    assert_eq!(begin.context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    assert_eq!(begin.context.parent_id, Some(0xb7ad_6b71_6920_3331));
    let request = &begin.request;
    let head = &request.head;
    assert_eq!((head.method(), head.url(), head.url_param()), ("POST", "/login", "?a=1"));
    assert_eq!((head.client_ip(), &request.body[..]), ("127.0.0.1", &br#"{"a":1}"#[..]));
    assert!(!format!("{request:?}").contains("leaked"));
    assert_eq!((begin.status, begin.duration, end.status), (None, None, Some(200)));
    assert!(end.duration.is_some_and(|took| took > std::time::Duration::ZERO) && end.id != begin.id);
    assert_eq!((request.caller.as_deref(), request.action.as_deref()), (None, None));
    assert_eq!(end.origin.service_id, "goms_user_127.0.0.1:1_127.0.0.1:2");
    assert!(events.try_recv().is_err());
    assert!(running.stop(SECOND).await);
}
