//! OTLP's JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>), where it differs from what serde
//! makes of a struct: ids are hex, 64-bit numbers strings, `null` is as good as nothing, unknown fields are ignored.

use std::fmt;
use std::str::FromStr;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{AnyValue, ArrayValue, KeyValueList, SpanKind, StatusCode, Value};

/// `null` is the default.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An id's bytes; empty for what is no hex, so that one bad id refuses one span and not all of them.
pub(super) fn hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let byte = |pair: &[u8]| {
        let digit = |letter: u8| char::from(letter).to_digit(16);
        u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
    };
    let pairs = text.as_bytes().chunks_exact(2);
    let is_whole = pairs.remainder().is_empty();
    Ok(pairs.map(byte).collect::<Option<Vec<u8>>>().filter(|_| is_whole).unwrap_or_default())
}

/// A number, or one in quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Either<'a, N> {
    Number(N),
    #[serde(borrow)]
    Text(std::borrow::Cow<'a, str>),
    Nothing(()),
}

/// A whole number, in quotes or without.
pub(super) fn whole<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + FromStr + Default,
    N::Err: fmt::Display,
{
    match Either::<N>::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Either::Nothing(()) => Ok(N::default()),
    }
}

/// The number of a kind, or its name as other protobuf JSON has it.
pub(super) fn span_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    enumeration(deserializer, |name| {
        Some(match name {
            "SPAN_KIND_INTERNAL" => SpanKind::Internal,
            "SPAN_KIND_SERVER" => SpanKind::Server,
            "SPAN_KIND_CLIENT" => SpanKind::Client,
            "SPAN_KIND_PRODUCER" => SpanKind::Producer,
            "SPAN_KIND_CONSUMER" => SpanKind::Consumer,
            _ => return None,
        } as i32)
    })
}

/// The same for how a span ended.
pub(super) fn status_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    enumeration(deserializer, |name| {
        Some(match name {
            "STATUS_CODE_OK" => StatusCode::Ok,
            "STATUS_CODE_ERROR" => StatusCode::Error,
            _ => return None,
        } as i32)
    })
}

fn enumeration<'de, D: Deserializer<'de>>(
    deserializer: D,
    number_of: impl Fn(&str) -> Option<i32>,
) -> Result<i32, D::Error> {
    Ok(match Either::<i32>::deserialize(deserializer)? {
        Either::Number(number) => number,
        Either::Text(name) => number_of(&name).unwrap_or(0),
        Either::Nothing(()) => 0,
    })
}

/// A double, also as `"NaN"` or `"Infinity"`.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer).map(Self)
    }
}

struct Int(i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOf;
        impl<'de> Visitor<'de> for OneOf {
            type Value = AnyValue;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an attribute's value, as {\"stringValue\": …}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
                let mut value = None;
                while let Some(key) = map.next_key::<String>()? {
                    value = match key.as_str() {
                        // bytes stay the base64 that they come in
                        "stringValue" | "bytesValue" => map.next_value::<Option<_>>()?.map(Value::String),
                        "boolValue" => map.next_value::<Option<_>>()?.map(Value::Bool),
                        "intValue" => map.next_value::<Option<Int>>()?.map(|Int(int)| Value::Int(int)),
                        "doubleValue" => {
                            map.next_value::<Option<Double>>()?.map(|Double(double)| Value::Double(double))
                        }
                        "arrayValue" => map.next_value::<Option<ArrayValue>>()?.map(Value::Array),
                        "kvlistValue" => map.next_value::<Option<KeyValueList>>()?.map(Value::List),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                }
                Ok(AnyValue { value })
            }
            fn visit_unit<E>(self) -> Result<AnyValue, E> {
                Ok(AnyValue::default())
            }
        }
        deserializer.deserialize_any(OneOf)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::{ExportTraceServiceRequest, KeyValue, ResourceSpans, ScopeSpans, Span, Status};
    use super::*;

    fn read(json: &str) -> ExportTraceServiceRequest {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    #[test]
    fn json_and_protobuf_give_the_same() {
        let json = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],"more":1},
            "scopeSpans":[{"scope":{"name":"lib","version":"2"},"schemaUrl":"x","spans":[{
              "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173",
              "name":"GET /cart","kind":2,"startTimeUnixNano":"1700000000000000001","endTimeUnixNano":1700000000500000002,
              "attributes":[{"key":"n","value":{"intValue":"-7"}},{"key":"m","value":{"intValue":7}},
                {"key":"d","value":{"doubleValue":1.5}},{"key":"b","value":{"boolValue":true}},
                {"key":"a","value":{"arrayValue":{"values":[{"stringValue":"x"},{}]}}},
                {"key":"k","value":{"kvlistValue":{"values":[{"key":"in","value":{"stringValue":"y"}}]}}}],
              "events":[{"timeUnixNano":"5","name":"boom","attributes":[]}],
              "links":[{"traceId":"00000000000000000000000000000001","spanId":"0000000000000002"}],
              "status":{"code":2,"message":"no"},"flags":257,"droppedAttributesCount":0}]}]}]}"#;
        let value = |value| Some(AnyValue { value: Some(value) });
        let pair = |key: &str, of| KeyValue { key: key.into(), value: value(of) };
        let text = |text: &str| AnyValue { value: Some(Value::String(text.into())) };
        let span = Span {
            trace_id: 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128.to_be_bytes().to_vec(),
            span_id: 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes().to_vec(),
            parent_span_id: 0xeee1_9b7e_c3c1_b173_u64.to_be_bytes().to_vec(),
            name: "GET /cart".into(),
            kind: 2,
            flags: 257,
            start_time_unix_nano: 1_700_000_000_000_000_001,
            end_time_unix_nano: 1_700_000_000_500_000_002,
            attributes: vec![
                pair("n", Value::Int(-7)),
                pair("m", Value::Int(7)),
                pair("d", Value::Double(1.5)),
                pair("b", Value::Bool(true)),
                pair("a", Value::Array(ArrayValue { values: vec![text("x"), AnyValue::default()] })),
                pair("k", Value::List(KeyValueList { values: vec![KeyValue::text("in", "y")] })),
            ],
            events: vec![super::super::Event { time_unix_nano: 5, name: "boom".into(), attributes: Vec::new() }],
            links: vec![super::super::Link {
                trace_id: 1_u128.to_be_bytes().to_vec(),
                span_id: 2_u64.to_be_bytes().to_vec(),
                ..Default::default()
            }],
            status: Some(Status { message: "no".into(), code: 2 }),
            ..Span::default()
        };
        let scope = Some(super::super::InstrumentationScope { name: "lib".into(), version: "2".into() });
        let resource = super::super::Resource { attributes: vec![KeyValue::text("service.name", "shop")] };
        let part =
            ResourceSpans { resource: Some(resource), scope_spans: vec![ScopeSpans { scope, spans: vec![span] }] };
        let expected = ExportTraceServiceRequest { resource_spans: vec![part] };
        assert_eq!(read(json), expected);
        assert_eq!(ExportTraceServiceRequest::decode(&expected.encode_to_vec()[..]).unwrap(), expected);
    }

    #[test]
    fn null_and_names_of_enums_are_read_too() {
        let json = r#"{"resourceSpans":[{"resource":null,"scopeSpans":[{"spans":[{"traceId":null,"spanId":"xyz","kind":"SPAN_KIND_CLIENT",
            "attributes":null,"name":null,"status":{"code":"STATUS_CODE_ERROR"},"startTimeUnixNano":null},{"spanId":"abc"}]}]}]}"#;
        let spans = read(json).resource_spans.remove(0).scope_spans.remove(0).spans;
        assert_eq!((spans[0].kind, spans[0].status.as_ref().map(|status| status.code)), (3, Some(2)));
        assert!(spans.iter().all(|span| span.trace_id.is_empty() && span.span_id.is_empty()));
        for nothing in ["{}", r#"{"resourceSpans":null}"#, r#"{"resourceSpans":[]}"#] {
            assert_eq!(read(nothing), ExportTraceServiceRequest::default());
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let of_span = |span: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
        for bad in [
            "",
            "7",
            r#"{"resourceSpans":{}}"#,
            &of_span("7"),
            &of_span(r#"{"startTimeUnixNano":"soon"}"#),
            &of_span(r#"{"startTimeUnixNano":-1}"#),
            &of_span(r#"{"attributes":[{"key":"a","value":{"intValue":"x"}}]}"#),
        ] {
            assert!(serde_json::from_str::<ExportTraceServiceRequest>(bad).is_err(), "{bad}");
        }
    }
}
