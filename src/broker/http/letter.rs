//! A message as Go Micro's HTTP broker sends it: JSON, the body in base64.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::Message;
use crate::trace::header_form;

/// Says which topic it was published to.
const TOPIC: &str = "Micro-Topic";

/// Why a letter is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum LetterError {
    #[error("it is no letter of JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its body is no base64: {0}")]
    Body(#[from] base64::DecodeError),
    #[error("it has no `{TOPIC}`")]
    Topic,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    header: BTreeMap<String, &'a str>,
    body: String,
}

/// Anything in it may be `null`.
#[derive(Deserialize)]
struct Read {
    #[serde(rename = "Header")]
    header: Option<BTreeMap<String, String>>,
    #[serde(rename = "Body")]
    body: Option<String>,
}

/// A message for its way. Names of headers are as Go writes them (`Content-Type`), which compares them as they are.
pub(super) fn written(message: &Message) -> Bytes {
    let named = message.headers.iter().map(|(name, value)| (header_form(name), value.as_str()));
    let mut header: BTreeMap<String, &str> = named.collect();
    header.insert(TOPIC.to_owned(), &message.topic);
    let body = BASE64_STANDARD.encode(&message.body);
    serde_json::to_vec(&Written { header, body }).unwrap_or_default().into() // texts always become JSON
}

/// The message of a letter.
///
/// # Errors
/// [`LetterError`].
pub(super) fn read(bytes: &[u8]) -> Result<Message, LetterError> {
    let Read { header, body } = serde_json::from_slice(bytes)?;
    let mut header = header.unwrap_or_default();
    let topic = header.remove(TOPIC).filter(|topic| !topic.is_empty()).ok_or(LetterError::Topic)?;
    let body = body.map_or(Ok(Vec::new()), |text| BASE64_STANDARD.decode(text))?;
    let headers = header.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Ok(Message { topic, headers, body: body.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_as_go_writes_it_and_comes_back() {
        let mut message = Message::new("orders", vec![0u8, 255]);
        message.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        let letter = written(&message);
        let expected = r#"{"Header":{"Content-Type":"application/json","Micro-Topic":"orders"},"Body":"AP8="}"#;
        assert_eq!(letter, expected);
        assert_eq!(read(&letter).expect("good"), message);
    }

    #[test]
    fn nulls_are_nothing_and_junk_is_told() {
        let empty = read(br#"{"Header":{"Micro-Topic":"a"},"Body":null}"#).expect("good");
        assert_eq!(empty, Message::new("a", ""));
        for bad in
            ["", "null", "{}", r#"{"Header":{"Micro-Topic":""}}"#, r#"{"Header":{"Micro-Topic":"a"},"Body":"!"}"#]
        {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
