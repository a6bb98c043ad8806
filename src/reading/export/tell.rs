//! What every format tells of a span: its ids and its attributes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::reading::Shown;

/// 32 hex digits; `None` for an event that belongs to no trace.
pub fn trace_id(shown: &Shown) -> Option<String> {
    match Uuid::try_parse(&shown.trace_id).or_else(|_| Uuid::try_parse(&shown.request_id)) {
        Ok(id) if !id.is_nil() => Some(id.simple().to_string()),
        _ => None,
    }
}

/// The attributes of a span: what another program said of its own, which is all that its events were made of; of an event
/// of goms what it tells, by the names that `trace::export` gives it too.
pub fn facts(shown: &Shown) -> Vec<(String, Value)> {
    let attributes = &shown.span.attributes;
    let mut facts = match shown.span.kind.as_str() {
        "" => of_goms(shown),
        _ => attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    };
    if shown.is_start() {
        facts.push(("goms.unfinished".to_owned(), json!(true)));
    }
    facts
}

fn of_goms(shown: &Shown) -> Vec<(String, Value)> {
    let request = &shown.request;
    let texts = [
        ("goms.request_id", shown.request_id.as_str()),
        ("http.request.method", &request.method),
        ("url.path", &request.url),
        ("url.query", request.url_param.trim_start_matches('?')),
        ("client.address", &request.client_ip),
        ("goms.action", &shown.action),
        ("goms.caller", &shown.caller),
        ("goms.event", &shown.event),
    ];
    let told = |(key, value): &(&str, &str)| *key == "goms.request_id" || !value.is_empty();
    let mut facts: Vec<_> = texts.into_iter().filter(told).map(|(key, value)| (key.to_owned(), json!(value))).collect();
    if let Some(status) = shown.status {
        facts.push(("http.response.status_code".to_owned(), json!(status)));
    }
    facts
}

/// The span's own id and its caller's.
pub fn ids(shown: &Shown) -> (String, Option<String>) {
    let is_id = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id(&shown.span_id) {
        return (shown.span_id.to_ascii_lowercase(), Some(shown.parent_id.to_ascii_lowercase()).filter(|id| is_id(id)));
    }
    let request = made(&[&shown.request_id, "request"]);
    if shown.event.starts_with("request.") {
        return (request, None);
    }
    (made(&[&shown.request_id, &shown.event, &shown.service_name, &shown.request.url]), Some(request))
}

fn made(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n").as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
