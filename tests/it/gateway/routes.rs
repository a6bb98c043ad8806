use super::*;
use crate::support::origin::Origin;

#[tokio::test]
async fn every_method_reaches_the_service_with_its_query() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
        let got = door.ask(method, "/api/user/login?a=1&b=%26+x&c", "", "").await;
        assert_eq!(got.status, 200, "{method}");
        let seen = origin.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/login?a=1&b=%26+x&c"));
        assert_eq!(got.json()["data"]["urlParam"], "?a=1&b=%26+x&c", "{method}");
        assert_eq!(got.json()["data"]["body"], serde_json::json!({}), "{method}");
    }
    let got = door.ask("HEAD", "/api/user/login", "", "").await;
    assert_eq!((got.status, got.body.len()), (200, 0));
    assert_eq!((got.header("content-length"), got.header("transfer-encoding")), (None, None));
}

#[tokio::test]
async fn unknown_paths_say_what_there_is() {
    let door = Door::open(&[]).await;
    for (path, message) in [
        ("/api/user/logn", "no action `logn` in service `user`; it has login, register"),
        ("/api/usr/login", "no service `usr`; did you mean `user`? there is order, user"),
        ("/api/payments/pay", "no service `payments`; there is order, user"),
        ("/api/user", "no route `/api/user`; requests go to `/api/<service>/<action>`"),
        ("/", "no route `/`; requests go to `/api/<service>/<action>`"),
    ] {
        let got = door.ask("GET", path, "", "").await;
        let id = got.header("x-request-id").unwrap();
        let expected = serde_json::json!({"status": false, "code": 404, "msg": message, "requestId": id});
        assert_eq!((got.status, got.json()), (404, expected), "{path}");
        assert_eq!(got.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_method_that_is_not_taken_is_405_with_allow() {
    let origin = Origin::echo().await;
    let door =
        Door::with(&[origin.address], |settings| login(settings).methods = vec!["POST".into(), "PUT".into()]).await;
    let got = door.get().await;
    assert_eq!((got.status, got.header("allow")), (405, Some("POST, PUT")));
    assert_eq!(door.post("", "").await.status, 200);
}

#[tokio::test]
async fn errors_come_as_problem_json_if_asked_for() {
    let door = Door::open(&[]).await;
    let got = door.ask("GET", "/api/user/logn", "Accept: text/html, application/problem+json;q=0.9\r\n", "").await;
    assert_eq!(got.header("content-type"), Some("application/problem+json"));
    let problem = got.json();
    assert_eq!((&problem["status"], &problem["title"]), (&404.into(), &"Not Found".into()));
    assert_eq!(problem["detail"], "no action `logn` in service `user`; it has login, register");
    assert_eq!(problem["requestId"], got.header("x-request-id").unwrap());
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_any_other_replaced() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let id = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    let got = door.post(&format!("X-Request-Id: {id}\r\n"), "").await;
    assert_eq!(got.header("x-request-id"), Some(id));
    let got = door.post("X-Request-Id: mine\r\n", "").await;
    let fresh = got.header("x-request-id").unwrap().to_owned();
    assert_eq!(uuid::Uuid::try_parse(&fresh).unwrap().get_version_num(), 4);
    let ids: Vec<_> = origin.seen().iter().map(|seen| seen.header("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(ids, [id.to_owned(), fresh]);
}

#[tokio::test]
async fn old_and_careful_clients_are_served() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    client.send("GET /api/user/login HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.unwrap().status, 200);
    assert!(client.closes().await);
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.interim().await, "HTTP/1.1 100 Continue");
    client.send("{}").await;
    assert_eq!(client.answer(false).await.unwrap().status, 200);
    let one = crate::support::wire::request("GET", "/api/user/login", "", "");
    client.send([one.clone(), one.clone(), one].concat()).await;
    for _ in 0..3 {
        assert_eq!(client.answer(false).await.unwrap().status, 200, "pipelined");
    }
}

#[tokio::test]
async fn nothing_known_yet_is_not_nobody() {
    let mut settings = Settings::default();
    settings.services.entry("user".into()).or_default().actions.insert("login".into(), action("/login"));
    let door = Door::with_publisher(Publisher::new(), settings);
    let got = door.get().await;
    assert_eq!(got.status, 503);
    assert_eq!(got.json()["msg"], "the registry has not told yet which nodes there are; try again in a second");
    let origin = Origin::echo().await;
    door.set_nodes(&[origin.address]).await;
    assert_eq!(door.get().await.status, 200);
}
