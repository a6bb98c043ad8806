//! Request ids and W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
//!
//! `X-Request-Id` is a UUID, and the same 128 bits are the trace id, unless the client brings a `traceparent` of its own.

use uuid::Uuid;

/// Who a request is, across all nodes that see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// `X-Request-Id`.
    pub request_id: Uuid,
    /// 128 bits, not all zero.
    pub trace_id: u128,
    /// This node's span, not zero.
    pub span_id: u64,
    /// The caller's span, if it brought one.
    pub parent_id: Option<u64>,
    /// The `sampled` flag.
    pub sampled: bool,
}

impl TraceContext {
    /// Continues what the caller brought in `X-Request-Id` and `traceparent`, or begins anew where it brought nothing
    /// valid.
    #[must_use]
    pub fn from_headers(request_id: Option<&[u8]>, traceparent: Option<&[u8]>) -> Self {
        let request_id = request_id.and_then(parse_request_id).unwrap_or_else(Uuid::new_v4);
        let parent = traceparent.and_then(parse_traceparent);
        Self {
            request_id,
            trace_id: parent.map_or(request_id.as_u128(), |parent| parent.0),
            span_id: new_span_id(),
            parent_id: parent.map(|parent| parent.1),
            sampled: parent.is_none_or(|parent| parent.2),
        }
    }

    /// The `traceparent` that a callee gets: this node's span as the parent.
    #[must_use]
    pub fn traceparent(&self) -> String {
        String::from_utf8_lossy(&self.traceparent_bytes()).into_owned()
    }

    /// The same, without memory of its own.
    #[must_use]
    pub fn traceparent_bytes(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text, 3, &self.trace_id.to_be_bytes());
        put_hex(&mut text, 36, &self.span_id.to_be_bytes());
        text[54] = b'0' + u8::from(self.sampled);
        text
    }
}

/// The two digits of each byte.
static DIGITS: [[u8; 2]; 256] = {
    const DIGIT: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        digits[byte] = [DIGIT[byte >> 4], DIGIT[byte & 15]];
        byte += 1;
    }
    digits
};

/// Writes two digits a byte. The lengths are known when it is built, so that it has neither loop nor checks.
fn put_hex<const N: usize>(text: &mut [u8; 55], at: usize, bytes: &[u8; N]) {
    for (place, byte) in bytes.iter().enumerate() {
        let from = at + 2 * place;
        text[from..from + 2].copy_from_slice(&DIGITS[usize::from(*byte)]);
    }
}

/// A UUID in its hyphenated form; all zeros is not one.
fn parse_request_id(value: &[u8]) -> Option<Uuid> {
    if value.len() != 36 {
        return None;
    }
    Uuid::try_parse_ascii(value).ok().filter(|id| !id.is_nil())
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case; a version above 00 may carry more after a `-`.
fn parse_traceparent(value: &[u8]) -> Option<(u128, u64, bool)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) || text.len() < 55 {
        return None;
    }
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version_number = hex(version, 2)?;
    if version_number == 0xff || (version_number == 0 && text.len() != 55) {
        return None;
    }
    let (trace_id, span_id, flags) = (hex(trace, 32)?, hex(span, 16)?, hex(flags, 2)?);
    (trace_id != 0 && span_id != 0).then_some((trace_id, u64::try_from(span_id).ok()?, flags & 1 == 1))
}

fn hex(digits: &str, len: usize) -> Option<u128> {
    // from_str_radix alone would take a leading `+`
    (digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(digits, 16).ok())?
}

fn new_span_id() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn continues_the_callers_trace() {
        let context = TraceContext::from_headers(None, Some(PARENT.as_bytes()));
        assert_eq!(context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(context.parent_id, Some(0xb7ad_6b71_6920_3331));
        assert!(context.traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    }

    #[test]
    fn the_request_id_is_the_trace_id() {
        let id = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
        let context = TraceContext::from_headers(Some(id.as_bytes()), None);
        assert_eq!(context.request_id.to_string(), id);
        assert_eq!(context.trace_id, context.request_id.as_u128());
    }

    #[test]
    fn what_is_not_valid_begins_anew() {
        for bad in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "",
        ] {
            assert_eq!(TraceContext::from_headers(None, Some(bad.as_bytes())).parent_id, None, "{bad}");
        }
        let context = TraceContext::from_headers(Some(b"not a uuid"), None);
        assert_eq!(context.request_id.get_version_num(), 4);
    }
}
