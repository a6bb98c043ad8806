//! Methods with streams, called by handlers.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use goms::service::Running;
use goms::shutdown::Shutdown;
use goms::{Context, Requests, Service, ServiceError};

use super::raw::{Raw, framed, rest};
use super::{node, start, table};
use crate::service::{JSON, ask, next, parts, start as start_http};

type Numbers = Result<u64, ServiceError>;

async fn count(_ctx: Context, to: u64) -> Result<impl Stream<Item = Numbers>, ServiceError> {
    if to == 0 {
        return Err(ServiceError::new(422, "count to something"));
    }
    let last = if to == 13 { Some(Err(ServiceError::new(409, "thirteen"))) } else { None };
    Ok(stream::iter((1..=to).map(Ok).chain(last)))
}

async fn sum(_ctx: Context, mut numbers: Requests<u64>) -> Numbers {
    let mut sum = 0;
    while let Some(number) = numbers.next().await? {
        sum += number;
    }
    Ok(sum)
}

async fn twice(_ctx: Context, numbers: Requests<u64>) -> Result<impl Stream<Item = Numbers>, ServiceError> {
    Ok(numbers.map(|number| number.map(|number| number * 2)))
}

async fn endless(
    _ctx: Context,
    _: serde_json::Value,
) -> Result<impl Stream<Item = Result<String, ServiceError>>, ServiceError> {
    Ok(stream::repeat_with(|| Ok("x".repeat(1000))))
}

fn math() -> Service {
    Service::new("math")
        .rpc_server_stream("Math.Count", count)
        .rpc_client_stream("Math.Sum", sum)
        .rpc_stream("Math.Twice", twice)
        .rpc_server_stream("Math.Endless", endless)
}

/// Calls each kind, and puts what came into one answer.
async fn front(ctx: Context, to: u64) -> Result<(Vec<u64>, Option<u64>, Vec<u64>), ServiceError> {
    let mut counting = ctx.rpc_stream("math", "Math.Count").await?;
    counting.send(&to).await?;
    counting.finish()?;
    let mut counted = Vec::new();
    while let Some(number) = counting.next().await? {
        counted.push(number);
    }
    let mut summing = ctx.rpc_stream("math", "Math.Sum").await?;
    for number in &counted {
        summing.send(number).await?;
    }
    summing.finish()?;
    let sum = summing.next().await?;
    assert_eq!(summing.next::<u64>().await?, None);
    let mut doubling = ctx.rpc_stream("math", "Math.Twice").await?;
    let mut doubled = Vec::new();
    // each answer before the next message
    for number in &counted {
        doubling.send(number).await?;
        doubled.extend(doubling.next::<u64>().await?);
    }
    doubling.finish()?;
    assert_eq!(doubling.next::<u64>().await?, None);
    Ok((counted, sum, doubled))
}

fn pair() -> (Running, Running, Shutdown) {
    let math = start(math(), parts("math").0);
    let (table, shutdown) = table(vec![node("math", math.address())]);
    let (mut front_parts, _) = parts("front");
    front_parts.calls = Some(table);
    let front = start_http(Service::new("front").route("/all", front), front_parts);
    (math, front, shutdown)
}

#[tokio::test]
async fn streams_of_every_kind_carry_their_messages() {
    let (math, front, shutdown) = pair();
    let asked = |to: &str| {
        let answer = ask(front.address(), "POST", "/all", &[JSON], to);
        (answer.status, answer.body)
    };
    assert_eq!(asked("4"), (200, "[[1,2,3,4],10,[2,4,6,8]]".to_owned()));
    let (status, many) = asked("5000");
    assert_eq!(status, 200);
    assert!(many.ends_with("9998,10000]]"), "{}", &many[many.len() - 40..]);
    // an error before the first message, and one in the middle
    let (status, error) = asked("0");
    assert_eq!(status, 422, "{error}");
    let (status, error) = asked("13");
    assert!(status == 409 && error.contains("thirteen"), "{status} {error}");
    assert!(front.stop(Duration::from_secs(2)).await);
    assert!(math.stop(Duration::from_secs(2)).await);
    shutdown.begin();
}

#[tokio::test]
async fn a_deadline_ends_a_stream_in_its_middle() {
    let (math, mut events) = parts("math");
    let math = start(math_with_silence(), math);
    let raw = Raw::connect(math.address()).await;
    let (response, mut stream) = raw.begin("/math.Math/Silence", &[("grpc-timeout", "100m")]).await;
    stream.send_data(framed("0"), true).expect("sent");
    let (head, mut body) = response.await.expect("an answer").into_parts();
    assert_eq!(head.status, 200);
    let (messages, trailers) = rest(&mut body).await;
    assert_eq!(messages, framed("1"));
    assert_eq!(trailers["grpc-status"], "4");
    assert_eq!(next(&mut events).await.status, None);
    assert_eq!(next(&mut events).await.status, Some(504));
    assert!(math.stop(Duration::from_secs(2)).await);
}

/// One message, and then nothing for ever.
fn math_with_silence() -> Service {
    async fn silence(_ctx: Context, _: u64) -> Result<impl Stream<Item = Numbers>, ServiceError> {
        Ok(stream::iter([Ok(1)]).chain(stream::pending()))
    }
    math().rpc_server_stream("Math.Silence", silence)
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_stream_back_and_nobody_else() {
    let math = start(math(), parts("math").0);
    let raw = Raw::connect(math.address()).await;
    let (response, mut stream) = raw.begin("/math.Math/Endless", &[]).await;
    stream.send_data(framed("null"), true).expect("sent");
    let mut body = response.await.expect("an answer").into_body();
    // nothing is released: as much as the window comes, and the handler waits
    let mut got = 0;
    while got < 65_535 {
        got += body.data().await.expect("a part").expect("a part").len();
    }
    assert_eq!(got, 65_535);
    // others on the same worker are answered; on a connection of their own, since the window of this one is used up
    let other = Raw::connect(math.address()).await;
    let answer = other.call("/math.Math/Count", &[], framed("2")).await;
    assert_eq!((answer.code, answer.body), (Some(0), [framed("1"), framed("2")].concat().into()));
    body.flow_control().release_capacity(got).expect("a window");
    assert!(!body.data().await.expect("it goes on").expect("it goes on").is_empty());
    drop((body, stream));
    assert!(math.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_node_that_dies_under_a_stream_is_told_and_the_next_call_finds_another() {
    let (math, front, shutdown) = pair();
    assert_eq!(ask(front.address(), "POST", "/all", &[JSON], "1").status, 200);
    assert!(math.stop(Duration::from_secs(2)).await);
    let gone = ask(front.address(), "POST", "/all", &[JSON], "1");
    assert_eq!(gone.status, 502, "{}", gone.body);
    assert!(gone.body.contains("cannot be reached by rpc"), "{}", gone.body);
    assert!(front.stop(Duration::from_secs(2)).await);
    shutdown.begin();
}
