//! An end event as a span, by OpenTelemetry's conventions for HTTP servers, version 1
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), and spans as what is posted.

use std::sync::Arc;
use std::time::Duration;

use super::Told;
use crate::trace::event::{Event, EventKind, Origin};
use crate::trace::otlp::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, SpanKind,
    Status, StatusCode,
};
use crate::trace::{INSTANCE, instance, tracestate};

/// W3C's flag `sampled`.
const SAMPLED: u32 = 0x01;
/// Flags of OTLP: it is known whether the parent is in another process, and it is.
const REMOTE_PARENT: u32 = 0x100 | 0x200;

/// What the node did for the request, once it is over.
pub(super) fn of(event: &Event) -> Option<Span> {
    if !matches!(event.kind, EventKind::RequestEnd | EventKind::ServiceEnd) {
        return None;
    }
    let (context, request) = (&event.context, &event.request);
    let end = u64::try_from(event.time_ms).unwrap_or(0).saturating_mul(1_000_000);
    let duration = u64::try_from(event.duration.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(u64::MAX);
    let parent = context.parent_id.map_or_else(Vec::new, |parent| parent.to_be_bytes().to_vec());
    let remote = if parent.is_empty() { 0 } else { REMOTE_PARENT };
    let what = request.action.as_deref().unwrap_or(request.head.url());
    Some(Span {
        trace_id: context.trace_id.to_be_bytes().to_vec(),
        span_id: context.span_id.to_be_bytes().to_vec(),
        trace_state: request.caller.as_deref().and_then(tracestate::member).unwrap_or_default(),
        parent_span_id: parent,
        flags: if context.sampled { SAMPLED } else { 0 } | remote,
        name: format!("{} {what}", request.head.method()),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: end.saturating_sub(duration),
        end_time_unix_nano: end,
        attributes: attributes(event),
        // a server span of a 4xx is no error by the conventions: the client made it
        status: failed(event).then(|| Status { message: String::new(), code: StatusCode::Error as i32 }),
        ..Span::default()
    })
}

fn failed(event: &Event) -> bool {
    event.status.is_some_and(|status| status >= 500)
}

fn attributes(event: &Event) -> Vec<KeyValue> {
    let (request, head) = (&event.request, &event.request.head);
    let mut found = vec![
        KeyValue::text("http.request.method", head.method()),
        KeyValue::text("url.scheme", "http"),
        KeyValue::text("url.path", head.url()),
    ];
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            found.push(KeyValue::text(key, value));
        }
    };
    text("url.query", head.url_param().strip_prefix('?').unwrap_or(head.url_param()));
    text("client.address", head.client_ip());
    let agent = head.headers().find(|(name, _)| *name == "User-Agent");
    text("user_agent.original", agent.map_or("", |(_, agent)| agent));
    if let Some(action) = &request.action {
        // goms's routes have no placeholders: where one matched, the path is the route
        text("http.route", head.url());
        text("goms.action", action);
    }
    text("goms.caller", request.caller.as_deref().unwrap_or_default());
    // so that another goms, which takes spans, knows a gateway's from a service's
    text("goms.event", event.kind.as_str());
    // not the trace id where the client brought a `traceparent` of its own
    text("goms.request_id", &event.context.request_id.to_string());
    if let Some(status) = event.status {
        if failed(event) {
            text("error.type", &status.to_string());
        }
        found.push(KeyValue::int("http.response.status_code", i64::from(status)));
    }
    found
}

/// One request for all of these, grouped by node.
pub(super) fn request(told: &[Told]) -> ExportTraceServiceRequest {
    let mut nodes: Vec<(&Arc<Origin>, Vec<Span>)> = Vec::new();
    for (origin, span) in told {
        match nodes.iter_mut().find(|(known, _)| Arc::ptr_eq(known, origin)) {
            Some((_, spans)) => spans.push(span.clone()),
            None => nodes.push((origin, vec![span.clone()])),
        }
    }
    let resource_spans = nodes
        .into_iter()
        .map(|(origin, spans)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    KeyValue::text("service.name", origin.service_name.as_str()),
                    KeyValue::text("service.namespace", origin.project_name.as_str()),
                    KeyValue::text("service.instance.id", origin.node.as_str()),
                    KeyValue::text(INSTANCE, instance()),
                ],
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "goms".into(), version: env!("CARGO_PKG_VERSION").into() }),
                spans,
            }],
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::trace::otlp::Value;
    use crate::trace::{Head, RequestInfo, TraceContext};

    fn event(status: u16) -> Event {
        let mut head = Head::new("POST", "/login", "?a=1&b=2", "10.0.0.9", 1);
        head.push_header("User-Agent", "curl/8");
        Event {
            kind: EventKind::ServiceEnd,
            context: TraceContext {
                request_id: Uuid::from_u128(7),
                trace_id: 0x0102,
                span_id: 3,
                parent_id: Some(4),
                sampled: true,
            },
            request: Arc::new(RequestInfo {
                head,
                body: Bytes::new(),
                action: Some("user/login".into()),
                caller: Some("gateway".into()),
            }),
            origin: Arc::new(Origin {
                service_name: "user".into(),
                service_id: "key".into(),
                project_name: "goms".into(),
                node: "127.0.0.1:1_127.0.0.1:2".into(),
            }),
            time_ms: 1_700_000_000_123,
            duration: Some(Duration::from_micros(1500)),
            status: Some(status),
            id: Uuid::from_u128(9),
        }
    }

    fn shown(attributes: &[KeyValue]) -> Vec<(&str, String)> {
        let value = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
            Value::String(text) => text,
            Value::Int(number) => format!("{number} (int)"),
            _ => panic!("neither text nor number"),
        };
        attributes.iter().map(|attribute| (attribute.key.as_str(), value(attribute))).collect()
    }

    #[test]
    fn an_end_event_is_a_server_span() {
        let span = of(&event(200)).unwrap();
        assert_eq!(span.trace_id, [&[0; 14][..], &[1, 2]].concat());
        assert_eq!((span.span_id, span.parent_span_id), (vec![0, 0, 0, 0, 0, 0, 0, 3], vec![0, 0, 0, 0, 0, 0, 0, 4]));
        assert_eq!((span.name.as_str(), span.trace_state.as_str()), ("POST user/login", "goms=gateway"));
        assert_eq!((span.kind, span.flags, span.status), (SpanKind::Server as i32, 0x301, None));
        assert_eq!(span.end_time_unix_nano, 1_700_000_000_123_000_000);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_500_000);
        let attributes = [
            ("http.request.method", "POST"),
            ("url.scheme", "http"),
            ("url.path", "/login"),
            ("url.query", "a=1&b=2"),
            ("client.address", "10.0.0.9"),
            ("user_agent.original", "curl/8"),
            ("http.route", "/login"),
            ("goms.action", "user/login"),
            ("goms.caller", "gateway"),
            ("goms.event", "service.end"),
            ("goms.request_id", "00000000-0000-0000-0000-000000000007"),
            ("http.response.status_code", "200 (int)"),
        ];
        assert_eq!(shown(&span.attributes), attributes.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn only_a_5xx_is_an_error() {
        for (status, error) in [(404, false), (499, false), (500, true), (503, true)] {
            let span = of(&event(status)).unwrap();
            assert_eq!(span.status.is_some_and(|status| status.code == StatusCode::Error as i32), error, "{status}");
            let kind = shown(&span.attributes).into_iter().find(|(key, _)| *key == "error.type");
            assert_eq!(kind, error.then(|| ("error.type", status.to_string())));
        }
    }

    #[test]
    fn what_a_root_from_outside_lacks_is_left_out_and_a_start_is_no_span() {
        let mut root = event(200);
        (root.kind, root.context.parent_id) = (EventKind::RequestEnd, None);
        let request = Arc::make_mut(&mut root.request);
        (request.action, request.caller) = (None, None);
        request.head = Head::new("POST", "/login", "", "10.0.0.9", 0);
        let span = of(&root).unwrap();
        assert_eq!((span.name.as_str(), span.trace_state.as_str(), span.flags), ("POST /login", "", SAMPLED));
        assert!(span.parent_span_id.is_empty());
        let keys: Vec<&str> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        for absent in ["url.query", "user_agent.original", "http.route", "goms.action", "goms.caller", "error.type"] {
            assert!(!keys.contains(&absent), "{absent}");
        }
        for start in [EventKind::RequestStart, EventKind::ServiceStart] {
            root.kind = start;
            assert!(of(&root).is_none());
        }
    }

    #[test]
    fn spans_are_grouped_by_node() {
        let (first, second) = (event(200), event(500));
        let told = [&first, &second, &first].map(|event| (event.origin.clone(), of(event).unwrap()));
        let request = request(&told);
        let counts: Vec<usize> = request.resource_spans.iter().map(|node| node.scope_spans[0].spans.len()).collect();
        assert_eq!(counts, [2, 1]);
        let resource = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
        assert_eq!(shown(resource)[0], ("service.name", "user".to_owned()));
        assert_eq!(shown(resource)[2], ("service.instance.id", "127.0.0.1:1_127.0.0.1:2".to_owned()));
    }
}
