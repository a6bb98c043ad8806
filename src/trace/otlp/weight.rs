//! What the messages of a body take in memory, told before they are made: two bytes of protobuf can ask for a whole span,
//! so that 16 MiB would become gigabytes.

use std::mem::size_of;

use super::{AnyValue, Event, KeyValue, Link, ResourceSpans, ScopeSpans, Span};

/// Memory for one object of JSON: between an attribute's and a span's, which has attributes in most bodies.
const JSON_OBJECT_BYTES: usize = 128;

/// prost reads no deeper.
const MAX_DEPTH: usize = 100;

/// A message that holds others.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    ResourceSpans,
    Resource,
    ScopeSpans,
    Span,
    Event,
    Link,
    KeyValue,
    AnyValue,
    Array,
    List,
}

impl Kind {
    /// The message in a field, and the bytes of its struct.
    fn field(self, tag: u64) -> Option<(Self, usize)> {
        Some(match (self, tag) {
            (Self::Request, 1) => (Self::ResourceSpans, size_of::<ResourceSpans>()),
            // one that a message has at most once lies within it
            (Self::ResourceSpans, 1) => (Self::Resource, 0),
            (Self::ResourceSpans, 2) => (Self::ScopeSpans, size_of::<ScopeSpans>()),
            (Self::ScopeSpans, 2) => (Self::Span, size_of::<Span>()),
            (Self::Span, 11) => (Self::Event, size_of::<Event>()),
            (Self::Span, 13) => (Self::Link, size_of::<Link>()),
            (Self::Resource | Self::List, 1) | (Self::Span, 9) | (Self::Event, 3) | (Self::Link, 4) => {
                (Self::KeyValue, size_of::<KeyValue>())
            }
            (Self::KeyValue, 2) => (Self::AnyValue, 0),
            (Self::Array, 1) => (Self::AnyValue, size_of::<AnyValue>()),
            (Self::AnyValue, 5) => (Self::Array, 0),
            (Self::AnyValue, 6) => (Self::List, 0),
            _ => return None,
        })
    }
}

/// Bytes of the structs that a request in protobuf becomes. What is cut or broken counts up to there; decoding tells.
pub(crate) fn protobuf_weight(body: &[u8]) -> usize {
    // a stack of what is yet to be walked, not recursion
    let mut waiting = vec![(Kind::Request, body, 0)];
    let mut weight = 0_usize;
    while let Some((kind, mut rest, depth)) = waiting.pop() {
        while let Some((tag, content)) = next_field(&mut rest) {
            if let Some((inner, bytes)) = kind.field(tag) {
                weight = weight.saturating_add(bytes);
                if depth < MAX_DEPTH && !content.is_empty() {
                    waiting.push((inner, content, depth + 1));
                }
            }
        }
    }
    weight
}

/// The same of a request in JSON, roughly.
pub(crate) fn json_weight(body: &[u8]) -> usize {
    body.iter().filter(|byte| **byte == b'{').count().saturating_mul(JSON_OBJECT_BYTES)
}

/// The next field's number and, of a length-delimited one, its content (<https://protobuf.dev/programming-guides/encoding/>).
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => {
            varint(rest)?;
            return Some((0, &[]));
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(if key & 7 == 2 { (key >> 3, content) } else { (0, &[]) })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..10 {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << (7 * shift);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::{ExportTraceServiceRequest, ResourceSpans};
    use super::*;

    #[test]
    fn each_message_counts() {
        let span = Span { attributes: vec![KeyValue::int("a", 1), KeyValue::text("b", "c")], ..Span::default() };
        let scope_spans = vec![ScopeSpans { scope: None, spans: vec![span.clone(), span] }];
        let body = ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: None, scope_spans }] };
        let each = size_of::<Span>() + 2 * size_of::<KeyValue>();
        let expected = size_of::<ResourceSpans>() + size_of::<ScopeSpans>() + 2 * each;
        assert_eq!(protobuf_weight(&body.encode_to_vec()), expected);
        assert_eq!(json_weight(b"{\"a\":[{},{}]}"), 3 * JSON_OBJECT_BYTES);
    }

    #[test]
    fn two_bytes_that_ask_for_a_span_weigh_one() {
        let spans = [0x12, 0].repeat(1000);
        let mut body = vec![0x12, 0xd0, 0x0f]; // field 2 of 2,000 bytes
        body.extend(spans);
        let mut outer = vec![0x0a, 0xd3, 0x0f];
        outer.extend(body);
        assert!(protobuf_weight(&outer) > 1000 * size_of::<Span>());
        let decoded = ExportTraceServiceRequest::decode(&outer[..]).unwrap();
        assert_eq!(decoded.resource_spans[0].scope_spans[0].spans.len(), 1000);
    }

    #[test]
    fn junk_ends_the_count() {
        for junk in
            [&b""[..], b"\xff", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x05ab", b"\x0f", b"junk"]
        {
            assert!(protobuf_weight(junk) < 1000, "{junk:?}");
        }
    }
}
