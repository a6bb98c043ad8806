use super::*;
use crate::support::origin::{Origin, Reply, answer, json};

async fn through(bytes: impl Into<Vec<u8>>) -> Got {
    let origin = Origin::answering(bytes).await;
    Door::open(&[origin.address]).await.get().await
}

#[tokio::test]
async fn an_object_gets_status_and_keeps_its_digits() {
    let got = through(json(r#"{"n":12345678901234567890.10,"m":1E5}"#)).await;
    assert_eq!(got.text(), r#"{"n":12345678901234567890.10,"m":1E5,"status":true}"#);
    assert_eq!(through(json(r#"{"status":"mine"}"#)).await.text(), r#"{"status":"mine"}"#);
    assert_eq!(through(json("{}")).await.text(), r#"{"status":true}"#);
    assert_eq!(through(json("[1]")).await.text(), "[1]");
    assert_eq!(through(json(r#"{"a":"#)).await.text(), r#"{"a":"#);
}

#[tokio::test]
async fn other_content_passes_untouched_with_status_and_headers() {
    let sent = answer(
        "201 Created",
        "Content-Type: text/html\r\nX-Mine: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nCall-Service-Key: oops\r\n",
        "<p>{}</p>",
    );
    let got = through(sent).await;
    assert_eq!((got.status, got.text().as_str(), got.header("x-mine")), (201, "<p>{}</p>", Some("1")));
    assert_eq!(got.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    for name in ["x-hop", "keep-alive", "call-service-key"] {
        assert_eq!(got.header(name), None);
    }
    assert_eq!(got.header("content-length"), Some("9"));
}

#[tokio::test]
async fn chunked_answers_and_redirects_pass() {
    let sent = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(through(sent).await.text(), "abcde");
    let sent = answer("302 Found", "Location: /elsewhere\r\n", "");
    let got = through(sent).await;
    assert_eq!((got.status, got.header("location")), (302, Some("/elsewhere")));
    assert_eq!(through("HTTP/1.1 204 No Content\r\n\r\n").await.status, 204);
}

#[tokio::test]
async fn a_failing_service_keeps_its_status() {
    let got = through(answer("418 I'm a teapot", "Content-Type: application/json\r\n", r#"{"why":"tea"}"#)).await;
    assert_eq!((got.status, got.text().as_str()), (418, r#"{"why":"tea","status":false}"#));
}

#[tokio::test]
async fn compressed_json_passes_untouched() {
    let sent = answer("200 OK", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", b"\x1f\x8b{}");
    let got = through(sent).await;
    assert_eq!((got.body.as_slice(), got.header("content-encoding")), (&b"\x1f\x8b{}"[..], Some("gzip")));
}

#[tokio::test]
async fn go_ms_form_for_answers_and_errors() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| login(settings).answer = AnswerForm::GoMs).await;
    let got = door.post(JSON, r#"{"field_a":"hello","n":1.0}"#).await;
    assert_eq!(got.text(), r#"{"code":200,"data":{"field_a":"hello","n":1.0},"message":"success"}"#);
    let got = door.ask("POST", "/api/user/logn", "", "").await;
    let message = "no action `logn` in service `user`; it has login, register";
    assert_eq!(got.text(), format!(r#"{{"code":404,"data":null,"message":"{message}"}}"#));
}

#[tokio::test]
async fn untouched_form_adds_nothing() {
    let origin = Origin::answering(json(r#"{"a":1}"#)).await;
    let door = Door::with(&[origin.address], |settings| login(settings).answer = AnswerForm::Untouched).await;
    assert_eq!(door.get().await.text(), r#"{"a":1}"#);
}

#[tokio::test]
async fn a_long_answer_streams_with_back_pressure_and_keeps_the_node_busy() {
    let mut sent = answer("200 OK", "Content-Type: application/octet-stream\r\n", vec![7; 8 << 20]);
    let rest = sent.split_off(sent.len() - 1);
    let (sent, rest) = (sent.clone(), rest.clone());
    let origin = Origin::start(move |_, _| Reply::Bytes([sent.clone(), rest.clone()].concat())).await;
    let door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    client.send(crate::support::wire::request("GET", "/api/user/login", "", "")).await;
    let busy = || door.balancer.view()[0].nodes[0].in_flight;
    wait_for("the answer to be on its way", || busy() == 1 && door.balancer.view()[0].nodes[0].answered == 1).await;
    let got = client.answer(false).await.unwrap();
    assert_eq!((got.body.len(), got.complete), (8 << 20, true));
    wait_for("the permit to go", || busy() == 0).await;
}
