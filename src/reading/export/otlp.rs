//! OTLP in JSON: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Ids are hex, 64-bit numbers strings.
//!
//! A request's four events are two spans: the gateway's, and below it the service's. Where a span began is its end less
//! its duration. Events of Go nodes name no span: theirs are made of a hash of request id, kind and service.

use std::collections::BTreeMap;
use std::io::Write;

use super::{Shown, Writer, facts, ids, trace_id};
use crate::store::FIRST_ERROR;
use serde_json::{Value, json};

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
    let trace_id = trace_id(shown)?;
    let (span_id, parent_id) = ids(shown);
    let name = match (shown.name.as_str(), shown.request.method.as_str()) {
        ("", "") => shown.line(),
        ("", method) if shown.action.is_empty() => format!("{method} {}", shown.request.url),
        ("", method) => format!("{method} {}", shown.action),
        (name, _) => name.to_owned(),
    };
    let kind = match (shown.span.kind.as_str(), shown.event.starts_with("span.")) {
        ("client", _) => 3,
        ("producer", _) => 4,
        ("consumer", _) => 5,
        (_, true) => 1,
        (_, false) => 2,
    };
    let began_ns = shown.began_ns().max(0);
    let ended_ns = began_ns + i128::from(shown.duration_ns.unwrap_or(0));
    let attributes: Vec<Value> =
        facts(shown).iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect();
    let is_error = shown.status.is_some_and(|status| status >= FIRST_ERROR);
    let mut span = json!({
        "traceId": trace_id, "spanId": span_id, "name": name, "kind": kind,
        "startTimeUnixNano": began_ns.to_string(), "endTimeUnixNano": ended_ns.to_string(),
        "attributes": attributes, "status": if is_error { json!({"code": 2}) } else { json!({}) },
    });
    if is_error && !shown.span.error.is_empty() {
        span["status"]["message"] = json!(shown.span.error);
    }
    if let Some(parent_id) = parent_id {
        span["parentSpanId"] = json!(parent_id);
    }
    Some(span)
}

/// A JSON value as OTLP has it.
fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(is) => json!({"boolValue": is}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(list) => json!({"arrayValue": {"values": list.iter().map(any).collect::<Vec<_>>()}}),
        Value::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect();
            json!({"kvlistValue": {"values": pairs}})
        }
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}
