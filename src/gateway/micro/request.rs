//! A client's request as the message that a service gets.

use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use url::form_urlencoded;

use super::error::MicroError;
use super::message::{self, Request};
use super::payload;
use crate::json;
use crate::listener::Incoming;
use crate::rpc::Codec;
use crate::trace::header_form;
use crate::upstream::{Forwarded, headers};

const FORM: &str = "application/x-www-form-urlencoded";
/// What Go Micro takes for protobuf.
const PROTOBUF: [&str; 5] = [
    "application/grpc",
    "application/grpc+proto",
    "application/proto",
    "application/protobuf",
    "application/octet-stream",
];
/// Forwarded headers are told anew.
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// The type of a body without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = String::from_utf8_lossy(value);
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `go.api.Request` in protobuf, of a request whose fields are these.
pub(super) fn of_http(
    request: &Incoming,
    fields: &[(&str, &[u8])],
    query: &str,
    body: &Bytes,
    forwarded: Forwarded<'_>,
) -> Bytes {
    let mut sent =
        Request { method: request.method().to_string(), path: request.path().to_owned(), ..Request::default() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let listed = || fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection")).map(|(_, value)| *value);
    for (name, value) in fields {
        if headers::passes_down(name, listed()) {
            message::add(&mut sent.header, &header_form(name), text(value));
        }
    }
    let chain = forwarded.chain.map_or_else(|| forwarded.client.to_string(), str::to_owned);
    message::add(&mut sent.header, FORWARDED_FOR, chain);
    message::add(&mut sent.header, "Host", forwarded.host.to_owned());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        message::add(&mut sent.get, &name, value.into_owned());
    }
    if media_type(request.headers()) == FORM {
        for (name, value) in form_urlencoded::parse(body) {
            message::add(&mut sent.post, &name, value.into_owned());
        }
    } else {
        sent.body = text(body);
    }
    sent.url = if query.is_empty() { sent.path.clone() } else { format!("{}?{query}", sent.path) };
    sent.encode_to_vec().into()
}

/// What handler `rpc` sends: protobuf as it came, else the query as JSON with the body over it.
///
/// # Errors
/// 400 where it is no JSON.
pub(super) fn of_rpc(headers: &HeaderMap, query: &str, body: &Bytes) -> Result<(Codec, Bytes), MicroError> {
    let kind = media_type(headers);
    if PROTOBUF.contains(&kind.as_str()) {
        return Ok((Codec::Proto, body.clone()));
    }
    let mut object = Value::Object(payload::of_query(query).map_err(MicroError::bad)?);
    if kind == FORM {
        let form = std::str::from_utf8(body).map_err(|_| MicroError::bad("the form is no text"))?;
        payload::merge(&mut object, Value::Object(payload::of_query(form).map_err(MicroError::bad)?));
    } else if !body.is_empty() {
        if query.is_empty() {
            // its numbers keep their digits
            serde_json::from_slice::<serde::de::IgnoredAny>(body).and_then(|_| json::check(body)).map_err(not_json)?;
            return Ok((Codec::Json, body.clone()));
        }
        payload::merge(&mut object, json::value(body).map_err(not_json)?);
    }
    Ok((Codec::Json, object.to_string().into()))
}

fn not_json(error: serde_json::Error) -> MicroError {
    MicroError::bad(format!("the body is no JSON: {error}"))
}

/// What `/rpc` asks for.
#[derive(Debug)]
pub(super) struct Named {
    pub service: String,
    pub endpoint: String,
    pub message: Bytes,
}

/// `{"service":"go.micro.srv.greeter","endpoint":"Say.Hello","request":{"name":"John"}}`, as JSON or as a form whose
/// `request` is JSON; `method` is another name of `endpoint`.
///
/// # Errors
/// 400 where a part is missing or is no JSON.
pub(super) fn named(headers: &HeaderMap, query: &str, body: &Bytes) -> Result<Named, MicroError> {
    let asked: Value = if media_type(headers).contains("json") {
        json::value(body).map_err(not_json)?
    } else {
        let pairs = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body));
        Value::Object(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect())
    };
    let text = |name: &str| asked.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let service = text("service").ok_or_else(|| MicroError::bad("invalid service"))?;
    let endpoint = text("endpoint").or_else(|| text("method")).ok_or_else(|| MicroError::bad("invalid endpoint"))?;
    let message = match asked.get("request") {
        None | Some(Value::Null) => "{}".to_owned(),
        // JSON in a string, as forms have it
        Some(Value::String(text)) if text.is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => {
            let message = text.as_bytes();
            serde_json::from_slice::<serde::de::IgnoredAny>(message)
                .and_then(|_| json::check(message))
                .map_err(not_json)?;
            text.clone()
        }
        Some(value) => value.to_string(),
    };
    Ok(Named { service, endpoint, message: message.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_type(kind: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        headers
    }

    fn asked(kind: &str, query: &str, body: &str) -> Result<(Codec, String), String> {
        let sent = of_rpc(&of_type(kind), query, &Bytes::copy_from_slice(body.as_bytes()));
        sent.map(|(codec, sent)| (codec, String::from_utf8_lossy(&sent).into_owned()))
            .map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_body_goes_over_the_query_and_keeps_its_digits_alone() {
        let json = |text: &str| Ok((Codec::Json, text.to_owned()));
        assert_eq!(asked("", "name=a", ""), json(r#"{"name":"a"}"#));
        assert_eq!(asked("application/json", "", r#"{"n":1.10}"#), json(r#"{"n":1.10}"#));
        assert_eq!(asked("application/json; charset=utf-8", "a=1&b=2", r#"{"b":3}"#), json(r#"{"a":1,"b":3}"#));
        assert_eq!(asked("application/x-www-form-urlencoded", "a=1", "b=x"), json(r#"{"a":1,"b":"x"}"#));
        assert_eq!(asked("application/protobuf", "", "\n\u{1}x"), Ok((Codec::Proto, "\n\u{1}x".to_owned())));
        assert!(asked("application/json", "", "{").is_err() && asked("application/json", "a=1", "x").is_err());
    }

    #[test]
    fn rpc_names_what_it_calls() {
        let ask = |kind: &str, body: &str| {
            named(&of_type(kind), "", &Bytes::copy_from_slice(body.as_bytes()))
                .map(|named| [named.service, named.endpoint, String::from_utf8_lossy(&named.message).into_owned()])
        };
        let expected = ["s", "A.B", r#"{"n":1}"#].map(str::to_owned);
        assert_eq!(ask("application/json", r#"{"service":"s","endpoint":"A.B","request":{"n":1}}"#).unwrap(), expected);
        assert_eq!(
            ask("application/json", r#"{"service":"s","method":"A.B","request":"{\"n\":1}"}"#).unwrap(),
            expected
        );
        let form = "service=s&endpoint=A.B&request=%7B%22n%22%3A1%7D";
        assert_eq!(ask("application/x-www-form-urlencoded", form).unwrap(), expected);
        for bad in ["", "{}", r#"{"service":"s"}"#, r#"{"service":"s","endpoint":"A.B","request":"{"}"#] {
            assert!(ask("application/json", bad).is_err(), "{bad}");
        }
    }
}
