//! The messages of a stream as lines of JSON (NDJSON) or as events (`text/event-stream`, the HTML standard section 9.2).

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use serde::Serialize;
use uuid::Uuid;

use super::json::Form;
use crate::upstream::{Broken, RpcError, RpcReceiver, RpcSender};

/// What goes to a client part by part.
pub(in crate::gateway) type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, Broken>>>>;

/// How a stream ended that had begun.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ended<'a> {
    status: bool,
    code: u16,
    msg: &'a str,
    request_id: Uuid,
}

struct State {
    form: Form,
    /// Lives as long as the call: dropping it early would cancel it.
    _sender: RpcSender,
    receiver: RpcReceiver,
    request_id: Uuid,
    first: Option<Bytes>,
}

/// The content type and the parts of an answer, whose first message must have come: a call that fails at once has an answer of
/// its own.
///
/// # Errors
/// The callee's status where it comes before any message.
pub(super) async fn answer(
    form: Form,
    sender: RpcSender,
    mut receiver: RpcReceiver,
    request_id: Uuid,
) -> Result<(&'static str, Parts), RpcError> {
    let kind = match form {
        Form::Lines => "application/x-ndjson",
        Form::Events => "text/event-stream",
    };
    let first = receiver.next().await?;
    if first.is_none() {
        return Ok((kind, Box::pin(stream::empty())));
    }
    let state = State { form, _sender: sender, receiver, request_id, first };
    let parts = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        let message = match state.first.take() {
            Some(first) => Ok(Some(first)),
            None => state.receiver.next().await,
        };
        match message {
            Ok(Some(message)) => Some((Ok(part(state.form, "", &message)), Some(state))),
            Ok(None) => None,
            Err(error) => {
                let status = error.status();
                let ended =
                    Ended { status: false, code: status.to_http(), msg: &status.message, request_id: state.request_id };
                // strings and numbers always become JSON
                let ended = serde_json::to_vec(&ended).unwrap_or_default();
                Some((Ok(part(state.form, "event: error\n", &ended)), None))
            }
        }
    });
    Ok((kind, Box::pin(parts)))
}

/// A message as a part of the answer; what is no JSON on one line becomes so.
fn part(form: Form, before: &str, message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + before.len() + 8);
    match form {
        Form::Lines => {
            // a line break in JSON stands between its parts: within a string it is written `\n`
            out.extend(message.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            out.put_u8(b'\n');
        }
        Form::Events => {
            out.put_slice(before.as_bytes());
            for line in message.split(|&byte| matches!(byte, b'\n' | b'\r')) {
                out.put_slice(b"data: ");
                out.put_slice(line);
                out.put_u8(b'\n');
            }
            out.put_u8(b'\n');
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_a_line_or_an_event() {
        assert_eq!(part(Form::Lines, "", b"{\n\"a\":1}"), "{ \"a\":1}\n");
        assert_eq!(part(Form::Events, "", b"{\n\"a\":1}"), "data: {\ndata: \"a\":1}\n\n");
        assert_eq!(part(Form::Events, "event: error\n", b"{}"), "event: error\ndata: {}\n\n");
    }
}
