//! OTLP as another program sends it: messages of its own (numbers as in opentelemetry-proto), JSON and gzip.

use std::io::Write;

use prost::Message;
use serde_json::{Value, json};

/// ExportTraceServiceRequest.
#[derive(Clone, PartialEq, Message)]
pub struct Export {
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<OfProcess>,
}

/// ResourceSpans.
#[derive(Clone, PartialEq, Message)]
pub struct OfProcess {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<Attribute>,
}

/// ScopeSpans.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub parent: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start: u64,
    #[prost(fixed64, tag = "8")]
    pub end: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

/// ExportTraceServiceResponse.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Partial {
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// google.rpc.Status.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;

/// A span in JSON that ended just now and took a millisecond; `parent` may be empty.
pub fn span(trace_id: &str, id: &str, parent: &str, kind: i32, name: &str, attributes: &[(&str, Value)]) -> Value {
    let end = jiff::Timestamp::now().as_nanosecond();
    let attributes: Vec<Value> = attributes
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Number(number) => json!({"intValue": number.to_string()}),
                text => json!({"stringValue": text}),
            };
            json!({"key": key, "value": value})
        })
        .collect();
    json!({"traceId": trace_id, "spanId": id, "parentSpanId": parent, "kind": kind, "name": name, "attributes": attributes,
           "startTimeUnixNano": (end - 1_000_000).to_string(), "endTimeUnixNano": end.to_string()})
}

/// Spans of one process as the body of a request in JSON.
pub fn export(service: &str, spans: &[Value]) -> String {
    let name = json!({"key": "service.name", "value": {"stringValue": service}});
    json!({"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [{"spans": spans}]}]}).to_string()
}

/// A trace id and a span id that no other test uses.
pub fn ids() -> (String, String) {
    let (first, second) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    (first.simple().to_string(), second.simple().to_string()[..16].to_owned())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}
