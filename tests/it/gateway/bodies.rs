use super::*;
use crate::support::origin::Origin;

const LIMIT: usize = 10 << 20;

async fn arrived(headers: &str, body: impl AsRef<[u8]>) -> (String, String) {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let got = door.post(headers, body).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let seen = origin.only();
    (seen.header("content-type").unwrap_or_default().to_owned(), seen.text())
}

#[tokio::test]
async fn json_passes_untouched() {
    let json = r#" {"n":12345678901234567890.10, "e":1e400, "s":"\u0041é", "a":[1,{}]} "#;
    for kind in
        [JSON, "Content-Type: application/json; charset=utf-8\r\n", "Content-Type: application/vnd.x+json\r\n", ""]
    {
        assert_eq!(arrived(kind, json).await, ("application/json".into(), json.into()), "{kind}");
    }
}

#[tokio::test]
async fn no_body_is_an_empty_object() {
    for headers in ["", JSON, FORM] {
        assert_eq!(arrived(headers, "").await, ("application/json".into(), "{}".into()), "{headers}");
    }
    assert_eq!(arrived("Content-Length: 0\r\n", "").await.1, "{}");
    assert_eq!(arrived(JSON, " \r\n").await.1, "{}");
}

#[tokio::test]
async fn defect_06_special_characters_survive() {
    let (kind, json) = arrived(FORM, "a=x%26y%2Bz%25%3B&b=one+two;three&a=2&%C3%A9=%E4%BD%A0").await;
    assert_eq!(kind, "application/json");
    assert_eq!(json, r#"{"a":["x&y+z%;","2"],"b":"one two;three","é":"你"}"#);
}

#[tokio::test]
async fn defect_06_a_form_over_the_limit_is_413_and_not_an_empty_object() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let got = door.post(FORM, "a=".to_owned() + &"x".repeat(LIMIT)).await;
    assert_eq!((got.status, got.json()["code"].clone()), (413, 413.into()));
    assert_eq!(got.json()["msg"], "the body has more than 10485760 bytes, the limit of this gateway");
    assert_eq!(origin.seen().len(), 0);
    let got = door.post(FORM, "a=".to_owned() + &"x".repeat(LIMIT - 2)).await;
    assert_eq!(got.status, 200);
    assert_eq!(origin.only().body.len(), LIMIT - 2 + r#"{"a":""}"#.len());
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_413() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| settings.limits.body_bytes = 1000).await;
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        client.send(format!("190\r\n{}\r\n", " ".repeat(400))).await;
    }
    assert_eq!(client.answer(false).await.unwrap().status, 413);
    assert_eq!(door.post(JSON, format!("{{{}}}", " ".repeat(998))).await.status, 200);
}

#[tokio::test]
async fn multipart_becomes_json_with_its_files_described() {
    let body = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx&y=1\r\n\
        --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"p\u{fc}.png\"\r\nContent-Type: image/png\r\n\r\n\0\r\n\u{1}\r\n\
        --B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--B--\r\n";
    let (kind, json) = arrived("Content-Type: multipart/form-data; boundary=B\r\n", body).await;
    assert_eq!(kind, "application/json");
    let file = r#"{"filename":"pü.png","contentType":"image/png","size":4}"#;
    assert_eq!(json, format!(r#"{{"a":["x&y=1","2"],"file":{file}}}"#));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let multipart = "Content-Type: multipart/form-data; boundary=B\r\n";
    for (headers, body, status, message) in [
        (JSON, &b"{\"a\":\n tru}"[..], 400, "the body is no JSON: expected ident at line 2 column 5"),
        (JSON, b"{\"a\":1} x", 400, "the body is no JSON: trailing characters at line 1 column 9"),
        (JSON, b"{\"a\":\"\xff\"}", 400, "the body is no JSON: it is not UTF-8 at byte 6"),
        ("", b"a=1", 400, "the body is no JSON: expected value at line 1 column 1"),
        (multipart, b"--B\r\nnonsense", 400, "the multipart body cannot be read: "),
        ("Content-Type: multipart/form-data\r\n", b"x", 400, "the multipart body cannot be read: "),
        (
            "Content-Type: text/plain\r\n",
            b"{}",
            415,
            "cannot read a body of type `text/plain`; send `application/json`, \
             `application/x-www-form-urlencoded` or `multipart/form-data`",
        ),
        (
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            b"x",
            415,
            "cannot read a body of type `content-encoding: gzip`",
        ),
    ] {
        let got = door.post(headers, body).await;
        let told = got.json()["msg"].as_str().unwrap().to_owned();
        assert_eq!(got.status, status, "{told}");
        assert!(told.starts_with(message), "{told}");
    }
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn deep_json_is_no_danger() {
    let json = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(arrived(JSON, &json).await.1, json);
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let origin = Origin::echo().await;
    let door =
        Door::with(&[origin.address], |settings| settings.limits.body_timeout = Duration::from_millis(100)).await;
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").await;
    let got = client.answer(false).await.unwrap();
    assert_eq!((got.status, got.json()["code"].clone()), (408, 408.into()));
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_calls_nobody() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").await;
    drop(client);
    door.event().await;
    assert!(matches!(door.event().await.status, Some(400 | 499)));
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn a_service_may_get_forms() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| login(settings).encode = Encode::Form).await;
    let json = r#"{"a":"x&y+z%;","n":1.10,"l":["p","q"],"o":{"k":"v"},"t":true}"#;
    door.post(JSON, json).await;
    door.post(FORM, "a=1%262&a=3").await;
    let seen = origin.seen();
    assert_eq!(seen[0].text(), "a=x%26y%2Bz%25%3B&n=1.10&l=p&l=q&o=%7B%22k%22%3A%22v%22%7D&t=true");
    assert_eq!(seen[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen[1].text(), "a=1%262&a=3");
    assert_eq!(door.post(JSON, "[1]").await.status, 400);
}

#[tokio::test]
async fn an_untouched_body_is_streamed_whatever_its_size() {
    let origin = Origin::start(|seen, _| {
        crate::support::origin::Reply::Bytes(crate::support::origin::json(&format!("{{\"n\":{}}}", seen.body.len())))
    })
    .await;
    let door = Door::with(&[origin.address], |settings| {
        login(settings).encode = Encode::None;
        settings.limits.body_bytes = 100;
    })
    .await;
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let got = door.post("Content-Type: image/png\r\n", &body).await;
    assert_eq!(got.text(), r#"{"n":3000000,"status":true}"#);
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.unwrap().status, 200);
    let seen = origin.seen();
    assert!(seen[0].body == body);
    assert_eq!(
        (seen[0].header("content-type"), seen[0].header("content-length")),
        (Some("image/png"), Some("3000000"))
    );
    assert_eq!((seen[1].text().as_str(), seen[1].header("transfer-encoding")), ("abcde", Some("chunked")));
}
