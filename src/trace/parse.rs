//! Reads what comes in as trace events: one JSON object or an array of them, from our nodes or the originals'.

mod known;
mod missing;

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::go_form::{parse_duration, parse_local_time};
use known::{Known, text, url_of, value};
use missing::Missing;

/// An event as it goes into a store.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// `eventId`; for an event without one, a UUID made of a hash of its bytes, so that a redelivery has the same.
    ///
    /// Two events of Go nodes with the same bytes are one: they tell of the same request id, event and second, and end
    /// events of the same duration to the nanosecond too, so nothing that a reader could tell apart is lost.
    pub id: String,
    /// The event as it came; behind it the fields that it lacked.
    pub json: Box<RawValue>,
    /// What is searched for.
    pub fields: Fields,
}

/// The searchable part of an event; a store indexes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `requestId`.
    pub request_id: String,
    /// `request.start`, …
    pub event: String,
    /// `serviceName`.
    pub service: String,
    /// `ip:rpc_ip:http`.
    pub node: String,
    /// The path.
    pub url: String,
    /// The HTTP status, on end events of our nodes.
    pub status: Option<u16>,
    /// Nanoseconds, on end events.
    pub duration_ns: Option<u64>,
    /// Milliseconds of Unix time; of an event that tells no time, when it was read.
    pub time_ms: i64,
    /// 32 hex digits.
    pub trace_id: String,
    /// `user/login`: what was asked of whom; of an event that does not say it, made of its service and path.
    pub action: String,
    /// The service that called; empty for a client from outside. An original's service is always called by a gateway.
    pub caller: String,
}

/// What a message held.
#[derive(Debug, Default)]
pub struct Received {
    /// Its events.
    pub events: Vec<Parsed>,
    /// Elements of an array that are no events: their JSON and why.
    pub refused: Vec<(String, ParseError)>,
}

/// Why something is no trace event.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("not JSON")]
    Json(#[source] serde_json::Error),
    /// JSON, but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// An object that says neither which request nor which event.
    #[error("no trace event: it has neither `requestId` nor `event`")]
    NotAnEvent,
    /// An array that would take many times its size in memory.
    #[error("an array of more than {MAX_ELEMENTS} elements; send fewer at once")]
    TooMany,
}

/// Who calls the services of the originals.
const ORIGINAL_CALLER: &str = "gateway";

/// Elements of one array: no sender of ours puts more than 4,096 in one, and 16 MiB of events are fewer.
const MAX_ELEMENTS: usize = 65_536;

/// The elements of an array, and of one that is too long the first [`MAX_ELEMENTS`] and one more.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Elements<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while elements.len() <= MAX_ELEMENTS {
                    match array.next_element()? {
                        Some(element) => elements.push(element),
                        None => return Ok(Elements(elements)),
                    }
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

#[derive(Deserialize)]
struct Timing {
    timing: String,
}

/// Reads one event or an array of events. Unknown fields and any body are kept as they are.
///
/// # Errors
/// [`ParseError`] when the whole message is no event; single elements of an array are in [`Received::refused`].
pub fn parse(bytes: &[u8]) -> Result<Received, ParseError> {
    let mut received = Received::default();
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let Elements(elements) = serde_json::from_slice(bytes).map_err(ParseError::Json)?;
        if elements.len() > MAX_ELEMENTS {
            return Err(ParseError::TooMany);
        }
        for element in elements {
            match parse_one(element) {
                Ok(event) => received.events.push(event),
                Err(error) => received.refused.push((element.get().to_owned(), error)),
            }
        }
    } else {
        let event: &RawValue = serde_json::from_slice(bytes).map_err(ParseError::Json)?;
        received.events.push(parse_one(event)?);
    }
    Ok(received)
}

fn parse_one(raw: &RawValue) -> Result<Parsed, ParseError> {
    let json = raw.get();
    if !json.starts_with('{') {
        return Err(ParseError::NotAnObject);
    }
    let known: Known<'_> = serde_json::from_str(json).map_err(ParseError::Json)?;
    let (request_id, event) = (text(known.request_id), text(known.event));
    if request_id.is_none() && event.is_none() {
        return Err(ParseError::NotAnEvent);
    }
    let (request_id, event) = (request_id.unwrap_or_default(), event.unwrap_or_default());
    let mut missing = Missing::default();

    let own_id = text(known.event_id).filter(|id| Uuid::try_parse(id).is_ok());
    let id = own_id.unwrap_or_else(|| missing.text(known.event_id, "eventId", hashed_id(json)));
    let trace_id = text(known.trace_id).unwrap_or_else(|| {
        let id = Uuid::try_parse(&request_id).map(|id| id.simple().to_string()).unwrap_or_default();
        missing.text(known.trace_id, "traceId", id)
    });
    let node = text(known.node).unwrap_or_else(|| {
        let service_id = text(known.service_id).unwrap_or_default();
        missing.text(known.node, "node", node_of(&service_id))
    });
    let duration_ns = value(known.duration_ns).or_else(|| {
        let timing = value::<Timing>(known.trace).and_then(|trace| parse_duration(&trace.timing))?;
        missing.number(known.duration_ns, "durationNs", timing);
        Some(timing)
    });
    let time_ms = value(known.time_ms).unwrap_or_else(|| {
        let time = text(known.time).and_then(|time| parse_local_time(&time));
        let time = time.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
        missing.number(known.time_ms, "timeMs", time);
        time
    });
    let service = text(known.service_name).unwrap_or_default();
    let url = url_of(known.request);
    let action =
        text(known.action).unwrap_or_else(|| missing.text(known.action, "action", action_of(&event, &service, &url)));
    let caller = match known.caller {
        Some(_) => text(known.caller).unwrap_or_default(),
        None if event.starts_with("service.") => missing.text(None, "caller", ORIGINAL_CALLER.to_owned()),
        None => String::new(),
    };
    Ok(Parsed {
        id,
        json: missing.append_to(raw).map_err(ParseError::Json)?,
        fields: Fields {
            request_id,
            event,
            service,
            node,
            url,
            status: value(known.status),
            duration_ns,
            time_ms,
            trace_id,
            action,
            caller,
        },
    })
}

/// `/api/user/login` at a gateway and `/login` at `user` → `user/login`.
fn action_of(event: &str, service: &str, url: &str) -> String {
    if event.starts_with("request.") {
        let named = url.strip_prefix("/api/").unwrap_or(url);
        return named.trim_matches('/').to_owned();
    }
    match url.trim_matches('/') {
        "" => service.to_owned(),
        path => format!("{service}/{path}"),
    }
}

/// `goms_user_ip:rpc_ip:http` → `ip:rpc_ip:http`.
fn node_of(service_id: &str) -> String {
    service_id.splitn(3, '_').nth(2).unwrap_or_default().to_owned()
}

/// The first 128 bits of SHA-256 as a version 8 UUID (RFC 9562, section 5.8).
fn hashed_id(json: &str) -> String {
    let digest = Sha256::digest(json.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_EVENT: &str = r#"{"requestId":"cdb08456-d8a7-4d53-93c2-a5e3f01f56d6","request":{"method":"POST","url":"/login","urlParam":"","clientIp":"127.0.0.1","headers":{},"body":{"n":1.10}},"event":"service.end","time":"2026-11-21 07:56:07","serviceName":"user","serviceId":"goms_user_127.0.0.1:19180_127.0.0.1:19080","projectName":"goms","trace":{"timing":"1.425053ms"}}"#;

    fn one(json: &str) -> Parsed {
        let mut received = parse(json.as_bytes()).unwrap();
        assert_eq!((received.events.len(), received.refused.len()), (1, 0));
        received.events.remove(0)
    }

    #[test]
    fn a_go_event_gets_the_fields_it_lacks() {
        let event = one(GO_EVENT);
        assert_eq!(event.fields.duration_ns, Some(1_425_053));
        assert_eq!(Some(event.fields.time_ms), parse_local_time("2026-11-21 07:56:07"));
        assert_eq!(event.fields.trace_id, "cdb08456d8a74d5393c2a5e3f01f56d6");
        assert_eq!(event.fields.node, "127.0.0.1:19180_127.0.0.1:19080");
        assert_eq!(
            (event.fields.url.as_str(), event.fields.service.as_str(), event.fields.status),
            ("/login", "user", None)
        );
        let tail = event.json.get().strip_prefix(&GO_EVENT[..GO_EVENT.len() - 1]).unwrap();
        let expected = format!(
            r#","eventId":"{}","traceId":"cdb08456d8a74d5393c2a5e3f01f56d6","node":"127.0.0.1:19180_127.0.0.1:19080","durationNs":1425053,"timeMs":{},"action":"user/login","caller":"gateway"}}"#,
            event.id, event.fields.time_ms
        );
        assert_eq!(tail, expected);
        assert_eq!(Uuid::try_parse(&event.id).unwrap().get_version_num(), 8);
    }

    #[test]
    fn action_and_caller_are_read_or_made() {
        for (json, action, caller) in [
            (
                r#"{"event":"request.end","request":{"url":"/api/user/login"},"serviceName":"gateway"}"#,
                "user/login",
                "",
            ),
            (r#"{"event":"service.end","request":{"url":"/"},"serviceName":"user"}"#, "user", "gateway"),
            (r#"{"event":"service.end","serviceName":"user","caller":null,"action":"a/b"}"#, "a/b", ""),
            (r#"{"event":"service.end","serviceName":"user","caller":"order"}"#, "user", "order"),
        ] {
            let fields = one(json).fields;
            assert_eq!((fields.action.as_str(), fields.caller.as_str()), (action, caller), "{json}");
        }
    }

    #[test]
    fn an_id_is_stable_and_differs_by_a_byte() {
        assert_eq!(one(GO_EVENT).id, one(GO_EVENT).id);
        assert_ne!(one(GO_EVENT).id, one(&GO_EVENT.replace("1.425053ms", "1.425054ms")).id);
        // what was completed once is not completed again
        let completed = one(GO_EVENT);
        let again = one(completed.json.get());
        assert_eq!((again.id, again.json.get()), (completed.id, completed.json.get()));
    }

    #[test]
    fn an_array_that_would_fill_the_memory_is_refused_as_a_whole() {
        let array = |elements: usize| format!("[{}0]", "0,".repeat(elements - 1));
        assert_eq!(parse(array(MAX_ELEMENTS).as_bytes()).unwrap().refused.len(), MAX_ELEMENTS);
        for elements in [MAX_ELEMENTS + 1, MAX_ELEMENTS + 2, 3 * MAX_ELEMENTS] {
            assert!(matches!(parse(array(elements).as_bytes()), Err(ParseError::TooMany)), "{elements}");
        }
        let broken = array(2 * MAX_ELEMENTS).replace("0]", "0}");
        assert!(matches!(parse(broken.as_bytes()), Err(ParseError::Json(_))));
    }

    #[test]
    fn odd_but_harmless_events_are_kept_as_they_are() {
        let odd = r#"{ "requestId":7, "event":"request.end", "request":{"body":[1]}, "status":"x", "extra":{"a":[null]}, "eventId":null }"#;
        let event = one(odd);
        assert_eq!((event.fields.request_id.as_str(), event.fields.status), ("", None));
        assert!(event.json.get().starts_with(odd.trim_end_matches('}')), "{}", event.json);
        assert!(!event.json.get().contains("eventId\":\""), "{}", event.json);
        assert!(Uuid::try_parse(&event.id).is_ok());
    }

    #[test]
    fn arrays_give_their_events_and_name_what_is_none() {
        let received = parse(format!(" [{GO_EVENT}, 7, {{}}]\n").as_bytes()).unwrap();
        assert_eq!(received.events.len(), 1);
        let refused: Vec<_> = received.refused.iter().map(|(json, why)| (json.as_str(), why.to_string())).collect();
        assert_eq!(
            refused,
            [
                ("7", "not a JSON object".to_owned()),
                ("{}", "no trace event: it has neither `requestId` nor `event`".to_owned())
            ]
        );
        for junk in ["", "nonsense", "7", "{", "{}", "\u{0}", "[{]"] {
            assert!(parse(junk.as_bytes()).is_err(), "{junk}");
        }
    }
}
