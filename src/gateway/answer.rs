//! The service's answer, made what the client gets.
//!
//! A JSON object gets one member more by splicing text, so that its numbers keep their digits and its members their
//! order. Everything else passes untouched, part by part.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::AnswerForm;
use super::compress::Encoded;
use super::pattern::Found;
use super::respond::Failure;
use super::rpc::MessageParts;
use super::rule::{Redirect, Respond};
use super::skim::{self, Members};
use crate::raw_fields::{RawFields, Span};
use crate::upgrade;
use crate::upstream::{AnswerBody, AnswerHead, UpstreamResponse, headers};

/// An answer that is longer passes as it is, without `status`: it does not belong in memory.
const SPLICED_BYTES: u64 = 64 << 20;

/// An answer of a known length up to this is read before it is passed on, so that one that breaks off becomes a 502.
const READ_FIRST_BYTES: u64 = 64 << 10;

/// What goes to the client.
pub(super) struct Answer {
    pub head: HttpResponse<BoxBody>,
    pub body: Body,
}

pub(super) enum Body {
    /// None and no length either: of a HEAD, a 204, a 304.
    None,
    Whole(Bytes),
    Passing(Box<AnswerBody>),
    /// The messages of a stream, as they come.
    Messages(MessageParts),
    /// In another coding.
    Encoded(Box<Encoded>),
}

/// Takes the service's answer over: status, headers that may pass, and the body in the form that the route asks for. The
/// headers stand beside the answer where nobody is going to look at them (`is_plain`), and else in it.
///
/// # Errors
/// When the answer breaks off, or is no complete JSON where nothing else tells that it is complete.
pub(super) async fn make(
    upstream: UpstreamResponse,
    form: AnswerForm,
    is_head: bool,
    is_plain: bool,
) -> Result<(Answer, RawFields), Failure> {
    let status = StatusCode::from_u16(upstream.status).unwrap_or(StatusCode::BAD_GATEWAY); // never: it is 200 to 599
    let mut head = HttpResponse::new(status);
    let is_changed = form != AnswerForm::Untouched
        && status != StatusCode::PARTIAL_CONTENT
        && is_json(upstream.headers())
        && upstream.body.length().unwrap_or(0) <= SPLICED_BYTES;
    let (mut fields, body) = upstream.into_parts();
    let listed: Vec<Bytes> = listed(&fields).collect();
    fields.retain(|name| headers::passes_up(name, listed.iter().map(|value| &value[..])));
    let passed = if is_plain {
        fields.retain(|name| !name.eq_ignore_ascii_case(b"x-request-id")); // the gateway has its own
        fields
    } else {
        take(&fields, head.headers_mut());
        RawFields::default()
    };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        upgrade::grant(head.head_mut());
        return Ok((Answer { head, body: Body::Passing(Box::new(body)) }, passed));
    }
    if is_head || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
        return Ok((Answer { head, body: Body::None }, passed));
    }
    let is_short = body.length().is_some_and(|length| length <= READ_FIRST_BYTES);
    if !is_changed && !is_short {
        return Ok((Answer { head, body: Body::Passing(Box::new(body)) }, passed));
    }
    let is_delimited = body.is_delimited();
    let limit = if is_changed { SPLICED_BYTES } else { READ_FIRST_BYTES };
    let body = body.collect(limit as usize).await?;
    // a body that ends with its connection may have been cut off
    if is_changed && !is_delimited && serde_json::from_slice::<IgnoredAny>(&body).is_err() {
        return Err(Failure::NotJson);
    }
    let body = match form {
        AnswerForm::GoMs if is_changed => go_ms(&body, status).unwrap_or(body),
        AnswerForm::Goms if is_changed => with_status(&body, status).unwrap_or(body),
        _ => body,
    };
    Ok((Answer { head, body: Body::Whole(body) }, passed))
}

/// What `Connection` lists besides what never passes.
fn listed(fields: &RawFields) -> impl Iterator<Item = Bytes> {
    let is_one = |span: &&Span| fields.bytes(span.name).eq_ignore_ascii_case(b"connection");
    let connection = fields.spans().iter().filter(is_one).map(|span| span.value);
    connection.filter(|&value| headers::lists_more(fields.bytes(value))).map(|value| fields.shared(value))
}

/// Takes fields over into a map.
fn take(fields: &RawFields, into: &mut HeaderMap) {
    for span in fields.spans() {
        // what the client parsed as a field is one here too
        if let Ok(name) = HeaderName::from_bytes(fields.bytes(span.name))
            && let Ok(value) = HeaderValue::from_maybe_shared(fields.shared(span.value))
        {
            into.append(name, value);
        }
    }
}

/// The answer that sends a client elsewhere.
///
/// # Errors
/// 400 where the path makes no URL.
pub(super) fn redirect(redirect: &Redirect, found: &Found<'_>, query: &str) -> Result<Answer, Failure> {
    let mut to = redirect.to.fill(found).into_owned();
    if to.starts_with('/') && !redirect.to.as_str().starts_with("//") {
        // browsers read `//host` and `/\\host` as another host, which a client's path must not name
        to.replace_range(..to.len() - to.trim_start_matches(['/', '\\']).len(), "/");
    }
    if !query.is_empty() && !to.contains('?') {
        to.push('?');
        to.push_str(query);
    }
    let to = if to.is_empty() { "/".to_owned() } else { to };
    let location = HeaderValue::from_str(&to)
        .map_err(|_| Failure::BadRequest("the path cannot be part of a redirect".to_owned()))?;
    let mut head = HttpResponse::new(StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND)); // never: the config checks
    head.headers_mut().insert(LOCATION, location);
    Ok(Answer { head, body: Body::Whole(Bytes::new()) })
}

/// An answer that stands in the config.
pub(super) fn fixed(respond: &Respond) -> Answer {
    let mut head = HttpResponse::new(StatusCode::from_u16(respond.status).unwrap_or(StatusCode::OK));
    if let Ok(content_type) = HeaderValue::from_str(&respond.content_type) {
        head.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    Answer { head, body: Body::Whole(respond.body.clone()) }
}

/// The answer that a message makes, which is JSON.
pub(super) fn of_message(message: Bytes, form: AnswerForm) -> Answer {
    let mut head = HttpResponse::new(StatusCode::OK);
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let spliced = match form {
        AnswerForm::GoMs => go_ms(&message, StatusCode::OK),
        AnswerForm::Goms => with_status(&message, StatusCode::OK),
        AnswerForm::Untouched => None,
    };
    Answer { head, body: Body::Whole(spliced.unwrap_or(message)) }
}

fn is_json(head: &AnswerHead) -> bool {
    let mut kind = None;
    for field in head.fields() {
        match field.name_bytes() {
            name if name.eq_ignore_ascii_case(b"content-type") => kind = kind.or(Some(field.value())),
            name if name.eq_ignore_ascii_case(b"content-encoding")
                && !field.value().eq_ignore_ascii_case(b"identity") =>
            {
                return false;
            }
            _ => {}
        }
    }
    let kind = kind.unwrap_or_default();
    let kind = kind.iter().position(|&byte| byte == b';').map_or(kind, |end| &kind[..end]).trim_ascii();
    let is_suffixed = kind.len() > 5 && kind[kind.len() - 5..].eq_ignore_ascii_case(b"+json");
    kind.eq_ignore_ascii_case(b"application/json") || is_suffixed
}

/// The object with `"status":true` (`false` beside an HTTP status of 400 and above) as its last member. `None`: it is no
/// JSON object, or has a `status` of its own.
fn with_status(body: &Bytes, status: StatusCode) -> Option<Bytes> {
    let members = members(body)?;
    if members.has_status {
        return None;
    }
    let end = body.iter().rposition(|&byte| byte == b'}')?;
    let ok = status.as_u16() < 400;
    let member: &[u8] = match (ok, members.count) {
        (true, 0) => br#""status":true"#,
        (true, _) => br#","status":true"#,
        (false, 0) => br#""status":false"#,
        (false, _) => br#","status":false"#,
    };
    let mut spliced = BytesMut::with_capacity(body.len() + member.len());
    spliced.put_slice(&body[..end]);
    spliced.put_slice(member);
    spliced.put_slice(&body[end..]);
    Some(spliced.freeze())
}

/// Reads the whole text, so that a splice never hides that it was malformed.
fn members(body: &[u8]) -> Option<Members> {
    skim::members(body).or_else(|| slow_members(body))
}

/// The same of every JSON.
pub(super) fn slow_members(body: &[u8]) -> Option<Members> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let members = reader.deserialize_map(CountMembers).ok()?;
    reader.end().ok()?;
    Some(members)
}

struct CountMembers;

impl<'de> Visitor<'de> for CountMembers {
    type Value = Members;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some(IsStatus(is_status)) = map.next_key()? {
            members.count += 1;
            members.has_status |= is_status;
            map.next_value::<IgnoredAny>()?;
        }
        Ok(members)
    }
}

/// Whether a key is `status`, without keeping it.
struct IsStatus(bool);

impl<'de> serde::Deserialize<'de> for IsStatus {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = IsStatus;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<IsStatus, E> {
                Ok(IsStatus(key == "status"))
            }
        }
        reader.deserialize_str(Key)
    }
}

/// What go-ms needs of an answer, as it was written.
#[derive(serde::Deserialize)]
struct Parts<'a> {
    /// `null` is a value too.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<&'de RawValue>, D::Error> {
    serde::Deserialize::deserialize(reader).map(Some)
}

/// The echo answer's `data`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Echo<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(rename = "headers")]
    _headers: IgnoredAny,
    #[serde(rename = "method")]
    _method: IgnoredAny,
    #[serde(rename = "urlParam")]
    _url_param: IgnoredAny,
}

/// `{"code":200,"data":…,"message":"success"}`: `data` is the object's own `data` (of an echo the fields that were sent),
/// or the whole object where it has none. `None`: it is no JSON object.
fn go_ms(body: &Bytes, status: StatusCode) -> Option<Bytes> {
    members(body)?;
    let parts: Parts<'_> = serde_json::from_slice(body).ok()?;
    let whole = std::str::from_utf8(body).ok()?.trim();
    let ok = status.as_u16() < 400;
    let data = match parts.data {
        _ if !ok => "null",
        Some(data) => serde_json::from_str::<Echo<'_>>(data.get()).map_or(data.get(), |echo| echo.body.get()),
        None => whole,
    };
    let message = match parts.message.or(parts.msg).map(RawValue::get) {
        Some(message) if message.starts_with('"') => message,
        _ if ok => "\"success\"",
        _ => "\"failure\"",
    };
    let code = if ok { 200 } else { status.as_u16() };
    Some(Bytes::from(format!("{{\"code\":{code},\"data\":{data},\"message\":{message}}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(text: &'static str, status: u16) -> Option<String> {
        let status = StatusCode::from_u16(status).unwrap();
        with_status(&Bytes::from(text), status).map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn an_object_gets_its_status_and_keeps_every_byte() {
        let long = r#"{ "n":12345678901234567890.1234567890, "o":{"status":1} }"#;
        let same = r#"{ "n":12345678901234567890.1234567890, "o":{"status":1} ,"status":true}"#;
        assert_eq!(spliced(long, 200).as_deref(), Some(same));
        assert_eq!(spliced("{}", 200).as_deref(), Some(r#"{"status":true}"#));
        assert_eq!(spliced("{\"a\":1}\n", 500).as_deref(), Some("{\"a\":1,\"status\":false}\n"));
    }

    #[test]
    fn what_has_a_status_or_is_no_object_stays() {
        for text in [r#"{"status":false}"#, r#"{"st\u0061tus":1}"#, "[1]", "3", "", "{", "{} {}", r#"{"a":}"#] {
            assert_eq!(spliced(text, 200), None, "{text}");
        }
    }

    #[test]
    fn go_ms_shows_what_was_sent() {
        let form = |text: &'static str, status| {
            let status = StatusCode::from_u16(status).unwrap();
            go_ms(&Bytes::from(text), status).map(|text| String::from_utf8(text.to_vec()).unwrap())
        };
        let echo =
            r#"{"code":0,"data":{"body":{"a":1.10},"headers":{},"method":"POST","urlParam":""},"msg":"success"}"#;
        assert_eq!(form(echo, 200).as_deref(), Some(r#"{"code":200,"data":{"a":1.10},"message":"success"}"#));
        assert_eq!(
            form(r#"{"data":[1],"msg":"ok"}"#, 201).as_deref(),
            Some(r#"{"code":200,"data":[1],"message":"ok"}"#)
        );
        assert_eq!(form(r#"{"x":1}"#, 200).as_deref(), Some(r#"{"code":200,"data":{"x":1},"message":"success"}"#));
        assert_eq!(form(r#"{"msg":"no"}"#, 403).as_deref(), Some(r#"{"code":403,"data":null,"message":"no"}"#));
        assert_eq!(form(r#"{"data":null}"#, 200).as_deref(), Some(r#"{"code":200,"data":null,"message":"success"}"#));
        assert_eq!(form("[]", 200), None);
    }
}
