//! OTLP over HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>): protobuf and JSON, answered in the encoding of
//! the request.
//!
//! ```text
//! POST /v1/traces   200 ExportTraceServiceResponse, once stored; `partialSuccess` tells what can never be
//!                   400 · 403 · 413 · 415 · 503 with Retry-After: google.rpc.Status {code, message}
//! ```

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{self, Bytes, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Map, Value, json};

use super::attributes::{Attributes, sound_key};
use super::callers::Callers;
use super::span::{Kind, Process, Span};
use super::{Door, Fault, Kept, Refusal};
use crate::causes::chain;
use crate::trace::otlp::{
    self, AnyValue, ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue,
    SpanKind, StatusCode as SpanStatus, json_weight, protobuf_weight,
};
use crate::trace::{INSTANCE, tracestate};

const PATH: &str = "/v1/traces";

/// How a request is written, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// The routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.route(PATH, web::post().to(take));
}

async fn take(request: HttpRequest, payload: Payload, door: Data<Door>) -> HttpResponse {
    let encoding = match request.headers().get("content-type").and_then(|kind| kind.to_str().ok()).map(media_type) {
        Some("application/x-protobuf") => Ok(Encoding::Protobuf),
        Some("application/json") => Ok(Encoding::Json),
        _ => Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send `Content-Type: application/x-protobuf` or `application/json`",
        )),
    };
    // whoever sends another one reads JSON best
    let answered_in = *encoding.as_ref().unwrap_or(&Encoding::Json);
    match export(&request, payload, &door, encoding).await {
        Ok(kept) => told(&kept, answered_in),
        Err(fault) => refused(&fault, answered_in),
    }
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

async fn export(
    request: &HttpRequest,
    payload: Payload,
    door: &Door,
    encoding: Result<Encoding, Fault>,
) -> Result<Kept, Fault> {
    let (encoding, mut body) = door.body_of(request, payload, encoding).await?;
    let weigh = if encoding == Encoding::Json { json_weight } else { protobuf_weight };
    body.held.add(weigh(&body.bytes))?;
    let export = decode(&body.bytes, encoding)?;
    body.bytes = Bytes::new();
    note(&export, &door.callers);
    let export = without_own(export, door);
    door.keep(spans(export).map(|span| span.map_err(Refusal::of))).await
}

fn decode(body: &[u8], encoding: Encoding) -> Result<ExportTraceServiceRequest, Fault> {
    let bad = |why: String| Fault::new(StatusCode::BAD_REQUEST, format!("cannot read the spans: {why}"));
    match encoding {
        Encoding::Protobuf => ExportTraceServiceRequest::decode(body).map_err(|error| bad(chain(&error))),
        // serde would take a list for a struct's fields
        Encoding::Json if !body.trim_ascii_start().starts_with(b"{") => Err(bad("not a JSON object".to_owned())),
        Encoding::Json => serde_json::from_slice(body).map_err(|error| bad(error.to_string())),
    }
}

/// Tells of every span whose it is, so that those below it find their caller wherever they stand.
fn note(export: &ExportTraceServiceRequest, callers: &Callers) {
    for part in &export.resource_spans {
        let attributes = part.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let service = attributes.iter().rev().find(|attribute| attribute.key == "service.name");
        let Some(otlp::Value::String(service)) = service.and_then(|name| name.value.as_ref()?.value.as_ref()) else {
            continue;
        };
        for span in part.scope_spans.iter().flat_map(|scope| &scope.spans) {
            if let (Some(trace_id), Some(span_id)) = (id_of_trace(&span.trace_id), id_of_span(&span.span_id)) {
                callers.note((trace_id, span_id), service, kind(span.kind).answers());
            }
        }
    }
}

/// Leaves out what this cluster's own processes send besides their events.
fn without_own(mut export: ExportTraceServiceRequest, door: &Door) -> ExportTraceServiceRequest {
    let is_own = |part: &otlp::ResourceSpans| {
        let attributes = part.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let instance = attributes.iter().rev().find(|attribute| attribute.key == INSTANCE);
        matches!(
            instance.and_then(|named| named.value.as_ref()?.value.as_ref()),
            Some(otlp::Value::String(instance)) if door.own.have(instance)
        )
    };
    export.resource_spans.retain(|part| {
        let leave_out = is_own(part);
        if leave_out {
            door.known.inc_by(part.scope_spans.iter().map(|scope| scope.spans.len() as u64).sum());
        }
        !leave_out
    });
    export
}

/// Every span with its process, or why it is none.
fn spans(export: ExportTraceServiceRequest) -> impl Iterator<Item = Result<Span, String>> {
    export.resource_spans.into_iter().flat_map(|part| {
        let process = Arc::new(process(part.resource.unwrap_or_default()));
        part.scope_spans.into_iter().flat_map(move |scope| {
            let library = scope.scope.unwrap_or_default();
            let library = format!("{} {}", library.name, library.version).trim().to_owned();
            let process = process.clone();
            scope.spans.into_iter().map(move |told| span(process.clone(), library.clone(), told))
        })
    })
}

fn process(resource: otlp::Resource) -> Process {
    let attributes = attributes(resource.attributes);
    let service = attributes.text(&["service.name"]).unwrap_or_default().into_owned();
    let node = ["service.instance.id", "k8s.pod.name", "host.name", "container.id"];
    let node = attributes.text(&node).unwrap_or_default().into_owned();
    Process::new(&service, node, attributes)
}

fn span(process: Arc<Process>, scope: String, told: otlp::Span) -> Result<Span, String> {
    let name = || told.name.chars().take(100).collect::<String>();
    let (Some(trace_id), Some(span_id)) = (id_of_trace(&told.trace_id), id_of_span(&told.span_id)) else {
        return Err(format!(
            "span `{}` of `{}` has no valid trace id (16 bytes) or span id (8 bytes)",
            name(),
            process.service()
        ));
    };
    // a clock that went back, or a span that tells only one of the two
    let (start_ns, end_ns) = match (told.start_time_unix_nano, told.end_time_unix_nano) {
        (0, 0) => return Err(format!("span `{}` of `{}` has no time", name(), process.service())),
        (0, end) => (end, end),
        (start, end) => (start, end.max(start)),
    };
    let status = told.status.unwrap_or_default();
    let member = tracestate::caller(std::iter::once(told.trace_state.as_bytes())).map(str::to_owned);
    Ok(Span {
        process,
        trace_id,
        span_id,
        parent_id: id_of_span(&told.parent_span_id),
        kind: kind(told.kind),
        name: told.name,
        start_ns,
        duration_ns: end_ns - start_ns,
        attributes: attributes(told.attributes),
        scope,
        failed: (status.code == SpanStatus::Error as i32).then_some(status.message),
        caller: None,
        member,
        moments: told.events.into_iter().map(moment).collect(),
        links: told.links.into_iter().map(link).collect(),
    })
}

fn kind(number: i32) -> Kind {
    match SpanKind::try_from(number) {
        Ok(SpanKind::Server) => Kind::Server,
        Ok(SpanKind::Client) => Kind::Client,
        Ok(SpanKind::Producer) => Kind::Producer,
        Ok(SpanKind::Consumer) => Kind::Consumer,
        Ok(SpanKind::Internal | SpanKind::Unspecified) | Err(_) => Kind::Internal,
    }
}

fn id_of_trace(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().map(u128::from_be_bytes).ok().filter(|id| *id != 0)
}

fn id_of_span(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().map(u64::from_be_bytes).ok().filter(|id| *id != 0)
}

fn moment(event: otlp::Event) -> Value {
    let mut moment = json!({"name": event.name, "timeNs": event.time_unix_nano});
    if let Some(attributes) = attributes(event.attributes).some() {
        moment["attributes"] = Value::Object(attributes.clone());
    }
    moment
}

fn link(link: otlp::Link) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut told = json!({"traceId": hex(&link.trace_id), "spanId": hex(&link.span_id)});
    if let Some(attributes) = attributes(link.attributes).some() {
        told["attributes"] = Value::Object(attributes.clone());
    }
    told
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    let mut attributes = Attributes::default();
    for KeyValue { key, value } in pairs {
        attributes.insert(&key, plain(value.unwrap_or_default()));
    }
    attributes
}

/// The value as JSON has it.
fn plain(value: AnyValue) -> Value {
    match value.value {
        None => Value::Null,
        Some(otlp::Value::String(text)) => Value::String(text),
        Some(otlp::Value::Bool(is)) => Value::Bool(is),
        Some(otlp::Value::Int(number)) => Value::from(number),
        // JSON has no infinity
        Some(otlp::Value::Double(number)) if !number.is_finite() => Value::String(number.to_string()),
        Some(otlp::Value::Double(number)) => Value::from(number),
        Some(otlp::Value::Array(list)) => list.values.into_iter().map(plain).collect(),
        Some(otlp::Value::List(list)) => {
            let pair = |pair: KeyValue| (sound_key(&pair.key), plain(pair.value.unwrap_or_default()));
            Value::Object(list.values.into_iter().map(pair).collect::<Map<_, _>>())
        }
        Some(otlp::Value::Bytes(bytes)) => Value::String(STANDARD.encode(&bytes)), // as OTLP's JSON has bytes
    }
}

/// `google.rpc.Status`, what a failure is told in.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

fn told(kept: &Kept, encoding: Encoding) -> HttpResponse {
    let partial_success = (kept.refused > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(kept.refused).unwrap_or(i64::MAX),
        error_message: kept.reason.clone(),
    });
    let body = match (encoding, partial_success) {
        (Encoding::Protobuf, partial_success) => ExportTraceServiceResponse { partial_success }.encode_to_vec(),
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(part)) => {
            let part = json!({"rejectedSpans": part.rejected_spans.to_string(), "errorMessage": part.error_message});
            json!({"partialSuccess": part}).to_string().into_bytes()
        }
    };
    HttpResponse::Ok().content_type(content_type(encoding)).body(body)
}

fn refused(fault: &Fault, encoding: Encoding) -> HttpResponse {
    // https://grpc.io/docs/guides/status-codes/
    let code = match fault.status {
        StatusCode::FORBIDDEN => 7,
        StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        _ => 3,
    };
    let message = fault.message.clone();
    let body = match encoding {
        Encoding::Protobuf => Status { code, message }.encode_to_vec(),
        Encoding::Json => json!({"code": code, "message": message}).to_string().into_bytes(),
    };
    let mut answer = HttpResponse::build(fault.status);
    if let Some(seconds) = fault.retry_after {
        answer.insert_header((RETRY_AFTER, seconds));
    }
    answer.content_type(content_type(encoding)).body(body)
}

fn content_type(encoding: Encoding) -> &'static str {
    if encoding == Encoding::Json { "application/json" } else { "application/x-protobuf" }
}

#[cfg(test)]
mod tests;
