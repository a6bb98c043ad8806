use super::*;
use crate::support::origin::{Origin, Reply, answer, dead, json};

#[tokio::test]
async fn no_node_is_503() {
    let door = Door::open(&[]).await;
    let got = door.get().await;
    assert_eq!(got.status, 503);
    assert_eq!(got.json()["msg"], "no node of service `user` is registered; start one or wait until one is back");
}

#[tokio::test]
async fn a_node_that_refuses_is_502() {
    let door = Door::open(&[dead()]).await;
    let got = door.post(JSON, "{}").await;
    assert_eq!(got.status, 502);
    assert_eq!(got.json()["msg"], "service `user` cannot be reached; try again, or see whether its nodes run");
    assert_eq!(door.balancer.view()[0].nodes[0].refused, 3);
    assert!(door.metrics.render().contains(r#"goms_upstream_retries_total{service="user"} 2"#));
}

#[tokio::test]
async fn a_broken_answer_is_502_and_a_post_is_sent_once() {
    type Script = fn() -> Reply;
    let cases: [(&str, Script); 6] = [
        ("reset", || Reply::Reset(Vec::new())),
        ("closed", || Reply::Close(Vec::new())),
        ("half a head", || Reply::Close(b"HTTP/1.1 200 OK\r\nContent-".to_vec())),
        ("not HTTP", || Reply::Close(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())),
        ("half a chunked body", || {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            Reply::Close(format!("{head}5\r\n{{\"a\":\r\n").into_bytes())
        }),
        ("half a body", || {
            Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{".to_vec())
        }),
    ];
    for (what, reply) in cases {
        let origin = Origin::start(move |_, _| reply()).await;
        let door = Door::open(&[origin.address]).await;
        let got = door.post(JSON, "{}").await;
        assert_eq!((got.status, origin.seen().len()), (502, 1), "{what}: {}", got.text());
        assert_eq!(got.json()["code"], 502);
    }
}

#[tokio::test]
async fn a_half_answer_is_502_or_seen_as_half() {
    for (whole, cut, status) in [(10, 5, 502), (300_000, 100_000, 200)] {
        let half = answer("200 OK", "Content-Type: text/plain\r\n", vec![b'x'; whole]);
        let origin = Origin::start(move |_, _| Reply::Close(half[..half.len() - cut].to_vec())).await;
        let got = Door::open(&[origin.address]).await.get().await;
        assert_eq!((got.status, got.complete), (status, status == 502), "{whole}");
    }
}

#[tokio::test]
async fn silence_is_504() {
    let origin = Origin::start(|_, _| Reply::Never).await;
    let door =
        Door::with(&[origin.address], |settings| login(settings).policy.timeout = Duration::from_millis(100)).await;
    let got = door.post(JSON, "{}").await;
    assert_eq!((got.status, origin.seen().len()), (504, 1));
    let advice = "try again, or give this action a longer `timeout`";
    assert_eq!(got.json()["msg"], format!("service `user` did not answer within 100ms; {advice}"));
    assert_eq!(door.get().await.status, 504);
    assert_eq!(origin.seen().len(), 1 + 3, "a GET may be repeated");
}

#[tokio::test]
async fn an_idempotent_request_goes_on_to_the_next_node() {
    let broken = Origin::start(|_, _| Reply::Reset(Vec::new())).await;
    let well = Origin::echo().await;
    let door = Door::open(&[broken.address, well.address]).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "GET"] {
        assert_eq!(door.ask(method, "/api/user/login", "", "").await.status, 200, "{method}");
    }
    assert_eq!(well.seen().len(), 5);
}

#[tokio::test]
async fn defect_07_a_dead_node_among_three_fails_nothing() {
    let (one, two) = (Origin::echo().await, Origin::echo().await);
    // not ejected, the dead node is met at each of its turns
    let change = |settings: &mut Settings| settings.services.get_mut("user").unwrap().balance.ejection = None;
    let door = Door::with(&[one.address, dead(), two.address], change).await;
    let mut client = door.connect().await;
    for turn in 0..60 {
        let (method, body) = if turn % 2 == 0 { ("GET", "") } else { ("POST", "{}") };
        assert_eq!(client.ask(method, "/api/user/login", "", body).await.status, 200, "{method} {turn}");
    }
    assert_eq!(one.seen().len() + two.seen().len(), 60, "none twice");
    let view = door.balancer.view();
    let dead = view[0].nodes.iter().find(|node| node.answered == 0).unwrap();
    assert!(dead.refused >= 20, "{}", dead.refused);
    assert_eq!(view[0].request_finish, 60);
}

#[tokio::test]
async fn defect_07_a_sent_post_is_not_repeated_unless_the_route_says_so() {
    let broken = Origin::start(|_, _| Reply::Reset(Vec::new())).await;
    let well = Origin::echo().await;
    let door = Door::with(&[broken.address, well.address], |settings| {
        let actions = &mut settings.services.get_mut("user").unwrap().actions;
        actions.get_mut("register").unwrap().policy.retry_non_idempotent = true;
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(door.post(JSON, "{}").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502], "each second one met the broken node");
    for _ in 0..4 {
        assert_eq!(door.ask("POST", "/api/user/register", JSON, "{}").await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_can_be_a_reason_to_try_again() {
    let busy = Origin::answering(answer("503 Service Unavailable", "", "busy")).await;
    let well = Origin::answering(json("{}")).await;
    let door =
        Door::with(&[busy.address, well.address], |settings| login(settings).policy.retry_status = vec![503]).await;
    for _ in 0..4 {
        assert_eq!(door.get().await.status, 200);
    }
    door.set_nodes(&[busy.address]).await;
    let got = door.get().await;
    assert_eq!((got.status, got.text().as_str()), (503, "busy"), "the last try's answer is the answer");
}

#[tokio::test]
async fn a_streamed_body_waits_for_a_node_that_takes_it() {
    let well = Origin::echo().await;
    let (one, two) = (dead(), dead());
    let door = Door::with(&[one, two, well.address], |settings| login(settings).encode = Encode::None).await;
    for _ in 0..3 {
        assert_eq!(door.post(JSON, r#"{"a":1}"#).await.json()["data"]["body"]["a"], 1);
    }
    assert_eq!(well.seen().len(), 3);
}

#[tokio::test]
async fn the_service_may_close_after_each_answer() {
    let origin = Origin::start(|_, _| Reply::Close(answer("200 OK", "Connection: close\r\n", "x"))).await;
    let door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    for _ in 0..20 {
        assert_eq!(client.ask("POST", "/api/user/login", JSON, "{}").await.status, 200);
    }
}

#[tokio::test]
async fn a_chunked_answer_that_breaks_off_does_not_look_whole() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, is_whole) in [("3\r\nabc\r\n", false), ("3\r\nabc\r\n0\r\n\r\n", true)] {
        let origin = Origin::start(move |_, _| Reply::Close(format!("{head}{body}").into_bytes())).await;
        let door = Door::open(&[origin.address]).await;
        let mut client = door.connect().await;
        client.send("GET /api/user/login HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.answer(false).await.is_some_and(|got| got.text() == "abc"), is_whole, "{body:?}");
    }
    // without any length the end of the connection is the end of the body
    let open = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabc";
    let origin = Origin::start(move |_, _| Reply::Close(open.into())).await;
    assert_eq!(Door::open(&[origin.address]).await.get().await.text(), "abc");
}
