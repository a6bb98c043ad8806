//! Answers in fewer bytes, for clients that take them (RFC 9110 section 8.4), where a route asks for it.
//!
//! ```text
//! request: Accept-Encoding ─ negotiate ─► coding     answer: status, type, length, what it says ─ may_encode ─► encoder
//! ```
//! `encoder` does the work, part by part. What is secret should not be compressed beside what a client chooses (BREACH,
//! <https://breachattack.com>), so it is off until somebody asks for it.

mod encoder;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue,
};

use super::answer::{Answer, Body};
use super::fields::vary;
pub(super) use encoder::Encoded;

/// Which answers are compressed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The codings; of those that a client likes best the first.
    pub codings: Vec<Coding>,
    /// Shorter answers stay as they are.
    pub least_bytes: usize,
    /// Media types: `text/html`, `text/*`, `*+json`; in lower case.
    pub types: Vec<String>,
}

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

/// What is compressed unless the config says otherwise: what is text.
pub const DEFAULT_TYPES: [&str; 8] = [
    "text/*",
    "application/json",
    "*+json",
    "application/javascript",
    "application/xml",
    "*+xml",
    "application/wasm",
    "application/x-ndjson",
];
/// In one packet with the head anyway.
pub const DEFAULT_LEAST_BYTES: usize = 1024;

impl Default for Compression {
    fn default() -> Self {
        Self {
            codings: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            least_bytes: DEFAULT_LEAST_BYTES,
            types: DEFAULT_TYPES.map(str::to_owned).to_vec(),
        }
    }
}

impl Coding {
    /// Its name in HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

impl Compression {
    /// The coding that the client likes best of ours; `None`: none of them (RFC 9110 section 12.5.3).
    pub(super) fn negotiate(&self, headers: &HeaderMap) -> Option<Coding> {
        // thousandths, as the grammar has three digits at most
        let (mut any, mut identity) = (None, None);
        let mut ours: Vec<Option<u16>> = vec![None; self.codings.len()];
        for item in headers.get_all(ACCEPT_ENCODING).filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
        {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let (name, weight) = (name.trim(), weight(parameters));
            if name == "*" {
                any = Some(weight);
            } else if name.eq_ignore_ascii_case("identity") {
                identity = Some(weight);
            } else if let Some(place) = self.codings.iter().position(|coding| {
                name.eq_ignore_ascii_case(coding.name())
                    || (*coding == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip"))
            }) {
                ours[place] = Some(weight);
            }
        }
        let weighed = self.codings.iter().zip(ours).map(|(coding, own)| (*coding, own.or(any).unwrap_or(0)));
        let mut best: Option<(Coding, u16)> = None;
        for (coding, weight) in weighed.filter(|(_, weight)| *weight > 0) {
            if best.is_none_or(|(_, before)| weight > before) {
                best = Some((coding, weight));
            }
        }
        best.filter(|(_, weight)| identity.is_none_or(|identity| *weight >= identity)).map(|(coding, _)| coding)
    }

    /// Whether this answer could be compressed, whatever the client takes.
    fn may_encode(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let whole = status.is_success() || status.is_client_error() || status.is_server_error();
        let is_no_body =
            [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT].contains(&status);
        let says = |name: &str| fields.contains_key(name);
        let mut caching = fields.get_all(CACHE_CONTROL).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let is_fixed = caching.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-transform"));
        let is_coded =
            fields.get_all(CONTENT_ENCODING).any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        // digests of what is sent (RFC 9530) would be wrong
        let is_digested = ["digest", "content-md5", "content-digest", "repr-digest"].into_iter().any(says);
        let kind = fields.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        whole
            && !(is_no_body || is_fixed || is_coded || is_digested || fields.contains_key(CONTENT_RANGE))
            && self.takes(kind)
    }

    fn takes(&self, content_type: &str) -> bool {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        !kind.is_empty()
            && self.types.iter().any(|known| match (known.strip_suffix('*'), known.strip_prefix('*')) {
                (Some(start), _) => kind.starts_with(start),
                (None, Some(end)) => kind.ends_with(end),
                (None, None) => kind == *known,
            })
    }

    /// Makes an answer shorter, if it may and the client takes it.
    pub(super) fn encode(&self, mut answer: Answer, coding: Option<Coding>) -> Answer {
        let status = answer.head.status();
        let fields = answer.head.headers_mut();
        if status == StatusCode::NOT_MODIFIED {
            // of what a cache keeps it says what the whole answer would (RFC 9110 section 15.4.5)
            vary(fields, "accept-encoding");
            if coding.is_some() {
                weaken(fields);
            }
            return answer;
        }
        if !self.may_encode(status, fields) {
            return answer;
        }
        let length = match &answer.body {
            Body::None => None, // of a HEAD
            Body::Whole(bytes) => Some(bytes.len() as u64),
            Body::Passing(body) => body.length(),
            Body::Messages(_) | Body::Encoded(_) => return answer,
        };
        if length.is_some_and(|length| length < self.least_bytes as u64) {
            return answer;
        }
        // a cache that keeps it must know for whom
        vary(fields, "accept-encoding");
        let Some(coding) = coding else { return answer };
        let body = match std::mem::replace(&mut answer.body, Body::None) {
            Body::Whole(bytes) => encoder::whole(coding, bytes),
            Body::Passing(body) => Ok(Body::Encoded(Box::new(Encoded::new(coding, body.into())))),
            other => {
                answer.body = other;
                return answer;
            }
        };
        match body {
            Ok(body) => {
                let fields = answer.head.headers_mut();
                fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
                fields.remove(CONTENT_LENGTH);
                fields.remove(ACCEPT_RANGES);
                weaken(fields);
                answer.body = body;
            }
            Err(as_it_was) => answer.body = Body::Whole(as_it_was),
        }
        answer
    }
}

/// Other bytes are not the same strong validator (RFC 9110 section 8.8.1).
fn weaken(fields: &mut HeaderMap) {
    let Some(tag) = fields.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        fields.insert(ETAG, weak);
    }
}

/// `q=0.5` in thousandths; 1 where it is not given, 0 where it cannot be read.
fn weight(parameters: &str) -> u16 {
    let q = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    match q {
        None => 1000,
        Some(text) => match text.parse::<f32>() {
            Ok(q) if (0.0..=1.0).contains(&q) => (q * 1000.0).round() as u16,
            _ => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_and_of_equals_the_first_of_ours() {
        let ours = Compression::default();
        let two = Compression { codings: vec![Coding::Gzip, Coding::Br], ..Compression::default() };
        for (accept, of_all, of_two) in [
            ("", None, None),
            ("gzip", Some(Coding::Gzip), Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd), Some(Coding::Gzip)),
            ("gzip;q=0.5, BR;q=0.8", Some(Coding::Br), Some(Coding::Br)),
            ("gzip; q=0.800 , br;q=0.8", Some(Coding::Br), Some(Coding::Gzip)),
            ("gzip;q=0", None, None),
            ("*", Some(Coding::Zstd), Some(Coding::Gzip)),
            ("zstd;q=0, *;q=0.1", Some(Coding::Br), Some(Coding::Gzip)),
            ("identity, gzip;q=0.5", None, None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip), Some(Coding::Gzip)),
            ("deflate, compress", None, None),
            ("x-gzip", Some(Coding::Gzip), Some(Coding::Gzip)),
            ("gzip;q=2, br;q=x", None, None),
            ("gzip;q=0.001", Some(Coding::Gzip), Some(Coding::Gzip)),
            (",,;;q=,gzip", Some(Coding::Gzip), Some(Coding::Gzip)),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
            }
            assert_eq!((ours.negotiate(&headers), two.negotiate(&headers)), (of_all, of_two), "{accept}");
        }
    }

    #[test]
    fn types_are_compared() {
        let ours = Compression::default();
        for (kind, takes) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/plain", true),
            ("application/json", true),
            ("application/problem+json", true),
            ("image/svg+xml", true),
            ("image/png", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(ours.takes(kind), takes, "{kind}");
        }
    }
}
