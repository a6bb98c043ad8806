//! What a caller may do wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goms::service::Running;
use goms::{Context, Service, ServiceError};
use tokio::sync::Notify;

use super::raw::{Bare, Raw, ended, framed};
use super::{Request, Response, start};
use crate::service::{next, parts};

async fn hello(ctx: Context, message: Request) -> Result<Response, ServiceError> {
    let foreign = ["conn", "content-le", "keep-al", "proxy-", "upgra", "transfer-", "accept-charset", "if-modified"];
    let fields = ctx.headers();
    assert!(!fields.keys().any(|name| foreign.iter().any(|start| name.starts_with(start))), "{fields:?}");
    Ok(Response { msg: format!("Hello {}", message.name) })
}

async fn never(_ctx: Context, _message: Request) -> Result<Response, ServiceError> {
    std::future::pending().await
}

fn greeter() -> Running {
    let (mut parts, _) = parts("greeter");
    parts.limits.body_bytes = 4 << 20;
    start(Service::new("greeter").rpc("Say.Hello", hello).rpc("Say.Never", never), parts)
}

const JOHN: &str = r#"{"name":"John"}"#;

#[tokio::test]
async fn a_foreign_content_length_does_no_harm() {
    let greeter = greeter();
    let raw = Raw::connect(greeter.address()).await;
    // the name by its number in the static table; as often as the dynamic table may hold it
    for length in ["3", "0", "999999", "3", "not a number", ""] {
        let answer = raw.call("/greeter.Say/Hello", &[("content-length", length)], framed(JOHN)).await;
        assert_eq!((answer.code, &answer.body[..]), (Some(0), &framed(r#"{"msg":"Hello John"}"#)[..]), "{length}");
    }
    // the name spelt out, as it is and in its code; with and without an index; padded and with a priority; in two frames
    let fields = |length: &[u8]| {
        let mut block = vec![0x83, 0x86, 0x41, 1, b'n', 0x04, 18];
        block.extend_from_slice(b"/greeter.Say/Hello");
        block.extend_from_slice(&[0x0f, 0x10, 21]);
        block.extend_from_slice(b"application/grpc+json");
        block.extend_from_slice(length);
        block
    };
    let coded = [0x21, 0xea, 0x49, 0x6a, 0x4a, 0xd4, 0x16, 0xa9, 0x93, 0x3f];
    let mut bare = Bare::connect(greeter.address()).await;
    let mut stream = 1;
    let spelt = |first: u8, huffman: bool| {
        let mut field = vec![first];
        if huffman {
            field.push(0x80 | 10);
            field.extend_from_slice(&coded);
        } else {
            field.push(14);
            field.extend_from_slice(b"content-length");
        }
        field.extend_from_slice(&[1, b'3']);
        field
    };
    let data = framed(JOHN);
    for field in [
        vec![0x5c, 1, b'3'],                   // indexed name, to be indexed
        vec![0x0f, 13, 1, b'3'],               // indexed name, not to be indexed
        vec![0x1f, 13, 0x81, 0x1f],            // never to be indexed, a coded value
        vec![0x9c],                            // the static table's entry, which has an empty value
        vec![0x3f, 0xe1, 0x1f, 0x5c, 1, b'3'], // after a change of the table's size
        spelt(0, false),
        spelt(0x10, true),
        spelt(0x40, false),
        vec![0xbf], // what the one before put into the dynamic table, behind this request's own `:authority`
        spelt(0x40, true),
        vec![0xbf],
    ] {
        let block =
            if field[0] == 0x3f { [field.clone()[..3].to_vec(), fields(&field[3..])].concat() } else { fields(&field) };
        bare.frame(1, 0x4, stream, &block).await;
        bare.frame(0, 1, stream, &data).await;
        let (seen, body) = bare.answer(stream).await;
        assert_eq!(body, framed(r#"{"msg":"Hello John"}"#), "field {field:?} on stream {stream}: {seen:?}");
        stream += 2;
    }
    let block = fields(&[0x5c, 1, b'3']);
    let padded = [&[3, 0, 0, 0, 0, 16][..], &block, &[0, 0, 0]].concat(); // padding's length, priority, block, padding
    bare.frame(1, 0x4 | 0x8 | 0x20, stream, &padded).await;
    bare.frame(0, 1, stream, &data).await;
    assert_eq!(bare.answer(stream).await.1, framed(r#"{"msg":"Hello John"}"#));
    for cut in [1, block.len() - 4, block.len() - 3, block.len() - 1] {
        stream += 2;
        bare.frame(1, 0, stream, &block[..cut]).await;
        bare.frame(9, 0x4, stream, &block[cut..]).await;
        bare.frame(0, 1, stream, &data).await;
        assert_eq!(bare.answer(stream).await.1, framed(r#"{"msg":"Hello John"}"#), "cut at {cut}");
    }
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

/// The code of RFC 7541, appendix B, as another program wrote it.
const CODED: [(&str, &[u8]); 5] = [
    ("connection", b"\x21\xea\xa8\xa4\x49\x8f\x57"),
    ("keep-alive", b"\xea\x52\xd6\xb0\xe8\x37\x72\xff"),
    ("proxy-connection", b"\xae\xc3\xf9\xf4\xb1\x0f\x55\x45\x22\x4c\x7a\xbf"),
    ("upgrade", b"\xb6\xb9\xac\x1c\x85"),
    ("transfer-encoding", b"\x4d\x83\xa9\x12\x96\xc5\x8b\x51\x0f\x21\xaa\x9b"),
];

#[tokio::test]
async fn fields_of_another_connection_do_no_harm() {
    let greeter = greeter();
    let mut bare = Bare::connect(greeter.address()).await;
    let mut blocks = vec![
        ("transfer-encoding by its number, to be indexed".to_owned(), vec![0x79, 1, b'x']),
        ("the same, not to be indexed".to_owned(), vec![0x0f, 42, 1, b'x']),
        ("the static table's entry".to_owned(), vec![0xb9]),
    ];
    for (name, coded) in CODED {
        let spelt = [&[0, name.len() as u8], name.as_bytes(), &[1, b'x']].concat();
        let coded = [&[0, 0x80 | coded.len() as u8], coded, &[1, b'x']].concat();
        blocks.extend([(format!("{name} spelt"), spelt), (format!("{name} coded"), coded)]);
    }
    for (nth, (what, field)) in blocks.into_iter().enumerate() {
        let stream = 1 + 2 * nth as u32;
        let mut block = vec![0x83, 0x86, 0x41, 1, b'n', 0x04, 18];
        block.extend_from_slice(b"/greeter.Say/Hello");
        block.extend_from_slice(&[0x0f, 0x10, 21]);
        block.extend_from_slice(b"application/grpc+json");
        block.extend_from_slice(&field);
        bare.frame(1, 0x4, stream, &block).await;
        bare.frame(0, 1, stream, &framed(JOHN)).await;
        let (seen, body) = bare.answer(stream).await;
        assert_eq!(body, framed(r#"{"msg":"Hello John"}"#), "{what}: {seen:?}");
    }
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let greeter = greeter();
    let raw = Raw::connect(greeter.address()).await;
    let told = async |path: &str, fields: &[(&str, &str)], body: Bytes| {
        let answer = raw.call(path, fields, body).await;
        (answer.code.unwrap_or(99), answer.message)
    };
    let hello = "/greeter.Say/Hello";
    let has = "in service `greeter`; it has Say.Hello, Say.Never";
    for (path, fields, body, code, message) in [
        ("/greeter.Say/Bye", &[][..], framed(JOHN), 12, format!("no method `/greeter.Say/Bye` {has}")),
        ("/Hello", &[], framed(JOHN), 12, format!("no method `/Hello` {has}")),
        (
            hello,
            &[("content-type", "application/grpc")],
            framed([10, 1, b'J']),
            12,
            "method `Say.Hello` takes application/grpc+json only".to_owned(),
        ),
        (
            hello,
            &[("content-type", "application/grpc+thrift")],
            framed(""),
            12,
            "there is no codec `thrift`; send application/grpc+json or application/grpc (protobuf)".to_owned(),
        ),
        (hello, &[], framed("{\"name\":"), 3, "the body does not fit at `name`: EOF while parsing a value at line 1 column 8".to_owned()),
        (hello, &[], Bytes::from_static(b"junk"), 13, "a message begins with 106, not with 0 or 1; this is not gRPC".to_owned()),
        (hello, &[], Bytes::from_static(&[0, 0, 0, 0, 9, 1]), 13, "the stream ended within a message, 8 bytes early".to_owned()),
        (hello, &[], Bytes::from_static(&[1, 0, 0, 0, 0]), 12, "the message is compressed, which this server does not take; send it as it is".to_owned()),
        (hello, &[], Bytes::from_static(&[0, 0xff, 0, 0, 0]), 8, "a message of 4278190080 bytes is longer than 4194304 bytes; send less at once".to_owned()),
        (hello, &[], Bytes::new(), 13, "the call has no message; send one".to_owned()),
        (hello, &[], Bytes::from([framed(JOHN), framed(JOHN)].concat()), 13, "the method takes one message, and the call has more".to_owned()),
        ("/greeter.Say/Never", &[("grpc-timeout", "20m")], framed(JOHN), 4, "no answer within the 20ms that the caller waits".to_owned()),
        (
            "/greeter.Say/Never",
            &[("timeout", "20000000")],
            framed(JOHN),
            4,
            r#"{"id":"greeter","code":504,"detail":"no answer within the 20ms that the caller waits","status":"Gateway Timeout"}"#.to_owned(),
        ),
    ] {
        assert_eq!(told(path, fields, body).await, (code, message), "{path} {fields:?}");
    }
    let not_grpc = raw.call(hello, &[("content-type", "application/json")], Bytes::from_static(b"{}")).await;
    assert_eq!((not_grpc.http, not_grpc.code), (415, None));
    assert!(not_grpc.body.starts_with(b"the content type `application/json` is not that of gRPC"));
    // and the connection still works
    assert_eq!(told(hello, &[], framed(JOHN)).await.0, 0);
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_call() {
    let (parts, mut events) = parts("greeter");
    let greeter = start(Service::new("greeter").rpc("Say.Never", never), parts);
    let raw = Raw::connect(greeter.address()).await;
    let (_response, mut stream) = raw.begin("/greeter.Say/Never", &[]).await;
    stream.send_data(framed(JOHN), true).expect("sent");
    assert_eq!(next(&mut events).await.status, None);
    stream.send_reset(h2_v4::Reason::CANCEL);
    assert_eq!(next(&mut events).await.status, Some(499));
    // the same when the connection goes
    let (_response, mut stream) = raw.begin("/greeter.Say/Never", &[]).await;
    stream.send_data(framed(JOHN), true).expect("sent");
    assert_eq!(next(&mut events).await.status, None);
    raw.cut();
    assert_eq!(next(&mut events).await.status, Some(499));
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn the_guard_lets_only_holders_of_the_key_in() {
    let (mut parts, _events) = parts("greeter");
    parts.call_keys = vec!["old".to_owned(), "new".to_owned()].into();
    let greeter = start(Service::new("greeter").rpc("Say.Hello", hello), parts);
    let raw = Raw::connect(greeter.address()).await;
    for (keys, code) in [
        (&[][..], 7),
        (&[("call-service-key", "wrong")], 7),
        (&[("call-service-key", "old"), ("call-service-key", "new")], 7),
        (&[("call-service-key", "old")], 0),
        (&[("call-service-key", "new")], 0),
    ] {
        assert_eq!(raw.call("/greeter.Say/Hello", keys, framed(JOHN)).await.code, Some(code), "{keys:?}");
    }
    // who may not come in does not learn what there is
    assert_eq!(raw.call("/greeter.Say/Bye", &[], framed(JOHN)).await.code, Some(7));
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_server_that_ends_finishes_what_runs() {
    let (parts, _events) = parts("greeter");
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let of_method = (begun.clone(), go_on.clone());
    let slow = move |_ctx: Context, message: Request| {
        let (begun, go_on) = of_method.clone();
        async move {
            begun.notify_one();
            go_on.notified().await;
            Ok::<_, ServiceError>(Response { msg: message.name })
        }
    };
    let greeter = start(Service::new("greeter").rpc("Say.Slow", slow), parts);
    let raw = Raw::connect(greeter.address()).await;
    let (response, mut stream) = raw.begin("/greeter.Say/Slow", &[]).await;
    stream.send_data(framed(JOHN), true).expect("sent");
    begun.notified().await;
    // in this order: the end has begun when the method goes on
    let (finished, (), answer) =
        tokio::join!(greeter.stop(Duration::from_secs(5)), async { go_on.notify_one() }, ended(response));
    assert!(finished);
    assert_eq!((answer.code, &answer.body[..]), (Some(0), &framed(r#"{"msg":"John"}"#)[..]));
}
