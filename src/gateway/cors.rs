//! Which pages of other origins a browser lets read answers (the Fetch standard, section "CORS protocol").
//!
//! A preflight is answered here, before anybody must prove anything, since browsers send none with it; also where the route does not take
//! OPTIONS. On other answers stand the fields that tell the browser; what the service says of this is replaced.

use std::fmt;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use actix_web::http::{Method, StatusCode};

use crate::listener::Incoming;

/// What clients of gRPC-Web read of an answer whose trailers stand in its head.
const GRPC_FIELDS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// What pages of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages; at least one.
    pub origins: Vec<OriginPattern>,
    /// Which methods they may use; `None`: those that the route takes.
    pub methods: Option<Vec<String>>,
    /// Which request headers they may set, in lower case; `None`: any.
    pub headers: Option<Vec<String>>,
    /// Which headers of the answer they may read besides the few that they always may; in lower case.
    pub expose: Vec<String>,
    /// Whether cookies and the like go with it. Not with any origin.
    pub credentials: bool,
    /// How long a browser need not ask again.
    pub max_age: Duration,
}

/// Some origins (RFC 6454), as browsers write them: in lower case, the port only where it is not the scheme's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// `https://example.com`
    Exact(String),
    /// `https://*.example.com`: scheme with `://`, and the rest from the dot on.
    Below(String, String),
}

impl OriginPattern {
    /// Reads `*`, `https://example.com:8443` or `https://*.example.com`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bad =
            || format!("`{text}` is no origin; write for example `https://example.com` or `https://*.example.com`");
        let lower = text.to_ascii_lowercase();
        let (scheme, host) = lower.split_once("://").ok_or_else(bad)?;
        let plain = host.strip_prefix("*.").unwrap_or(host);
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let is_host = plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte));
        if scheme.is_empty() || !is_scheme || plain.is_empty() || !is_host {
            return Err(bad());
        }
        let usual = if scheme == "https" { ":443" } else { ":80" };
        if plain.ends_with(usual) && ["http", "https"].contains(&scheme) {
            return Err(format!("`{text}` names its scheme's own port, which browsers leave out; leave it out too"));
        }
        Ok(match host.strip_prefix('*') {
            Some(below) => Self::Below(format!("{scheme}://"), below.to_owned()),
            None => Self::Exact(lower),
        })
    }

    fn holds(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(known) => known.as_bytes() == origin,
            Self::Below(scheme, below) => {
                let host = origin.strip_prefix(scheme.as_bytes()).and_then(|host| host.strip_suffix(below.as_bytes()));
                host.is_some_and(|name| !name.is_empty() && !name.iter().any(|byte| b"/:@".contains(byte)))
            }
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => out.write_str("*"),
            Self::Exact(origin) => out.write_str(origin),
            Self::Below(scheme, below) => write!(out, "{scheme}*{below}"),
        }
    }
}

/// The method that a preflight asks for; `None`: it is none.
pub(super) fn asked_method(request: &Incoming) -> Option<&str> {
    if *request.method() != Method::OPTIONS {
        return None;
    }
    request.headers().get(ORIGIN)?;
    request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
}

impl Cors {
    fn admits(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|known| known.holds(origin.as_bytes()))
    }

    /// Whether the answer is the same for every origin.
    fn is_for_any(&self) -> bool {
        self.origins.contains(&OriginPattern::Any)
    }

    /// Tells the browser of this request; `None`: the origin is not let in.
    fn told(&self, origin: &HeaderValue) -> Option<Vec<(HeaderName, HeaderValue)>> {
        if !self.admits(origin) {
            return None;
        }
        let origin = if self.is_for_any() { HeaderValue::from_static("*") } else { origin.clone() };
        let mut fields = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin)];
        if self.credentials {
            fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        Some(fields)
    }

    /// Answers a preflight. `methods` are those of the route; empty: any.
    ///
    /// # Errors
    /// What is not let in.
    pub(super) fn preflight(
        &self,
        request: &Incoming,
        methods: &[String],
    ) -> Result<HttpResponse<actix_web::body::BoxBody>, &'static str> {
        let headers = request.headers();
        let told = headers.get(ORIGIN).and_then(|origin| self.told(origin));
        let mut fields = told.ok_or("pages of this origin may not use this route")?;
        let method = asked_method(request).unwrap_or_default();
        let methods = self.methods.as_deref().unwrap_or(methods);
        if !methods.is_empty() && !methods.iter().any(|known| known == method) {
            return Err("pages of other origins may not use this method");
        }
        let allowed = if methods.is_empty() { method.to_owned() } else { methods.join(", ") };
        fields.extend(HeaderValue::from_str(&allowed).ok().map(|value| (ACCESS_CONTROL_ALLOW_METHODS, value)));
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            let value = match &self.headers {
                None => Some(asked.clone()),
                Some(known) => HeaderValue::from_str(&known.join(", ")).ok(),
            };
            fields.extend(value.map(|value| (ACCESS_CONTROL_ALLOW_HEADERS, value)));
        }
        fields.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs())));
        let mut answer = HttpResponse::new(StatusCode::NO_CONTENT);
        for (name, value) in fields {
            answer.headers_mut().insert(name, value);
        }
        for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
            super::fields::vary(answer.headers_mut(), name);
        }
        Ok(answer)
    }

    /// Puts on an answer what lets the page read it, in place of what the service says.
    pub(super) fn dress(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let is_of_cors = |name: &&HeaderName| name.as_str().starts_with("access-control-allow-");
        let own: Vec<HeaderName> = answer.keys().filter(is_of_cors).cloned().collect();
        for name in own.iter().chain([&ACCESS_CONTROL_EXPOSE_HEADERS]) {
            answer.remove(name);
        }
        if !self.is_for_any() {
            super::fields::vary(answer, "origin");
        }
        let Some(fields) = origin.and_then(|origin| self.told(origin)) else { return };
        for (name, value) in fields {
            answer.insert(name, value);
        }
        let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc-web");
        let mut exposed: Vec<&str> = self.expose.iter().map(String::as_str).collect();
        if answer.get(CONTENT_TYPE).is_some_and(is_grpc) {
            exposed.extend(GRPC_FIELDS.iter().filter(|field| !self.expose.iter().any(|known| known == *field)));
        }
        if !exposed.is_empty()
            && let Ok(value) = HeaderValue::from_str(&exposed.join(", "))
        {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_and_compared() {
        for (pattern, origin, holds) in [
            ("*", "https://a.example.com", true),
            ("https://Example.com", "https://example.com", true),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com.evil.net", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://b.a.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://evil.net/.example.com", false),
            ("https://*.example.com", "https://evil.net:80.example.com", false),
            ("https://*.example.com:8443", "https://a.example.com:8443", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://localhost:3000", "null", false),
        ] {
            let read = OriginPattern::parse(pattern).expect(pattern);
            assert_eq!(read.holds(origin.as_bytes()), holds, "{pattern} {origin}");
            assert_eq!(read.to_string(), pattern.to_ascii_lowercase());
        }
        for bad in [
            "",
            "null",
            "example.com",
            "https://",
            "https://a/b",
            "https://a.com/",
            "https://*",
            "https://a.*.com",
            "https://example.com:443",
            "http://example.com:80",
            "ht tp://a",
        ] {
            assert!(OriginPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
