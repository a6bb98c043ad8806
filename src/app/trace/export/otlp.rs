//! OTLP in JSON: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Ids are hex, 64-bit numbers strings.
//!
//! A request's four events are two spans: the gateway's, and below it the service's. Where a span began is its end less
//! its duration. Events of Go nodes name no span: theirs are made of a hash of request id, kind and service.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Shown, Writer};
use crate::store::FIRST_ERROR;

#[derive(Default)]
pub struct Otlp {
    written: u64,
    has_part: bool,
}

impl Writer for Otlp {
    fn begin(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(b"{\"resourceSpans\":[")
    }

    /// One element for each node of a page; several of one node are as good as one.
    fn spans(&mut self, spans: &[Shown], out: &mut dyn Write) -> std::io::Result<()> {
        let mut nodes: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
        for shown in spans {
            if let Some(span) = span(shown) {
                nodes.entry((&shown.service_name, &shown.node)).or_default().push(span);
                self.written += 1;
            }
        }
        for ((service, node), spans) in nodes {
            let mut attributes = vec![text("service.name", service)];
            if !node.is_empty() {
                attributes.push(text("service.instance.id", node));
            }
            let scope = json!({"name": "goms", "version": env!("CARGO_PKG_VERSION")});
            let part =
                json!({"resource": {"attributes": attributes}, "scopeSpans": [{"scope": scope, "spans": spans}]});
            write!(out, "{}\n{part}", if self.has_part { "," } else { "" })?;
            self.has_part = true;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(b"\n]}\n")
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// `None` for an event that belongs to no trace.
fn span(shown: &Shown) -> Option<Value> {
    let trace_id = match Uuid::try_parse(&shown.trace_id).or_else(|_| Uuid::try_parse(&shown.request_id)) {
        Ok(id) if !id.is_nil() => id.simple().to_string(),
        _ => return None,
    };
    let (span_id, parent_id) = ids(shown);
    let is_server = !shown.event.starts_with("span.");
    let request = &shown.request;
    let name = match (shown.name.as_str(), request.method.as_str()) {
        ("", "") => shown.line(),
        ("", method) if shown.action.is_empty() => format!("{method} {}", request.url),
        ("", method) => format!("{method} {}", shown.action),
        (name, _) => name.to_owned(),
    };
    let began_ns = shown.began_ns().max(0);
    let ended_ns = began_ns + i128::from(shown.duration_ns.unwrap_or(0));
    let mut attributes = vec![text("goms.request_id", &shown.request_id)];
    let query = request.url_param.trim_start_matches('?');
    for (key, value) in [
        ("http.request.method", request.method.as_str()),
        ("url.path", &request.url),
        ("url.query", query),
        ("client.address", &request.client_ip),
        ("goms.action", &shown.action),
    ] {
        if !value.is_empty() {
            attributes.push(text(key, value));
        }
    }
    if let Some(status) = shown.status {
        attributes.push(json!({"key": "http.response.status_code", "value": {"intValue": status.to_string()}}));
    }
    if shown.is_start() {
        attributes.push(json!({"key": "goms.unfinished", "value": {"boolValue": true}}));
    }
    let is_error = shown.status.is_some_and(|status| status >= FIRST_ERROR);
    let mut span = json!({
        "traceId": trace_id, "spanId": span_id, "name": name, "kind": if is_server { 2 } else { 1 },
        "startTimeUnixNano": began_ns.to_string(), "endTimeUnixNano": ended_ns.to_string(),
        "attributes": attributes, "status": if is_error { json!({"code": 2}) } else { json!({}) },
    });
    if let Some(parent_id) = parent_id {
        span["parentSpanId"] = json!(parent_id);
    }
    Some(span)
}

/// The span's own id and its caller's.
fn ids(shown: &Shown) -> (String, Option<String>) {
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

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}
