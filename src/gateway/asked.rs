//! What of a request a route is chosen by, and whether it fulfils a route's condition.

use std::borrow::Cow;

use actix_web::http::header::{HOST, HeaderMap, HeaderValue};
use url::form_urlencoded;

use super::pattern::Found;
use super::respond::Failure;
use super::rule::{Condition, FieldCondition};
use super::{HostPattern, host, pattern};
use crate::listener::Incoming;

/// In place of a `Host` that is no text, which [`unambiguous`] refuses.
const NO_HOST: &str = "\u{fffd}";

/// What a route is chosen by.
pub(super) struct Asked<'r> {
    pub method: &'r str,
    pub host: &'r str,
    /// In its one spelling.
    pub path: &'r str,
    pub headers: &'r HeaderMap,
    pub query: &'r str,
}

/// Why a route does not take a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mismatch<'c> {
    #[error("the path is another")]
    Path,
    #[error("the host is not `{0}`")]
    Host(&'c HostPattern),
    #[error("the header {0}")]
    Header(&'c FieldCondition),
    #[error("the query parameter {0}")]
    Query(&'c FieldCondition),
    #[error("the method is not {}", list(.0.iter()))]
    Method(&'c [String]),
}

impl Condition {
    /// What the path finds where all of it holds. The method is looked at last: who asks with another hears which there are.
    pub(super) fn check<'c, 'p>(&'c self, asked: &Asked<'p>) -> Result<Found<'p>, Mismatch<'c>> {
        let found = self.path.find(asked.path).ok_or(Mismatch::Path)?;
        self.check_rest(asked).map(|()| found)
    }

    /// All but the path.
    pub(super) fn check_rest<'c>(&'c self, asked: &Asked<'_>) -> Result<(), Mismatch<'c>> {
        if let Some(host) = self.host.as_ref().filter(|host| !host.matches(asked.host)) {
            return Err(Mismatch::Host(host));
        }
        if let Some(field) = self.headers.iter().find(|field| !has_header(field, asked.headers)) {
            return Err(Mismatch::Header(field));
        }
        if let Some(field) = self.query.iter().find(|field| !has_parameter(field, asked.query)) {
            return Err(Mismatch::Query(field));
        }
        let takes = |known: &String| known.eq_ignore_ascii_case(asked.method);
        if self.methods.is_empty() || self.methods.iter().any(takes) {
            Ok(())
        } else {
            Err(Mismatch::Method(&self.methods))
        }
    }
}

impl std::fmt::Display for FieldCondition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "`{}` is not `{value}`", self.name),
            None => write!(f, "`{}` is missing", self.name),
        }
    }
}

impl<'r> Asked<'r> {
    /// `path` is [`unambiguous`].
    pub fn new(request: &'r Incoming, path: &'r str) -> Self {
        Self::of_host(request, host_of(request), path)
    }

    /// As [`Asked::new`] where the host is known.
    pub fn of_host(request: &'r Incoming, host: &'r str, path: &'r str) -> Self {
        Self {
            method: request.method().as_str(),
            host,
            path,
            headers: request.headers(),
            query: request.query_string(),
        }
    }
}

/// The path in its one spelling.
///
/// # Errors
/// What of path or host another reader might understand otherwise.
pub(super) fn unambiguous<'r>(path: &'r str, host: &str) -> Result<Cow<'r, str>, Failure> {
    let path = pattern::normal(path).map_err(|why| Failure::Ambiguous(format!("the path {why}")))?;
    if host::is_valid(host) {
        Ok(path)
    } else {
        Err(Failure::Ambiguous("the Host field is no host with an optional port".to_owned()))
    }
}

/// The host that a request names.
pub(super) fn host_of(request: &Incoming) -> &str {
    // RFC 9112 section 3.2.2: a target with a host goes before the field
    let named = || request.headers().get(HOST).map_or("", |host| host.to_str().unwrap_or(NO_HOST));
    request.uri().authority().map_or_else(named, |authority| authority.as_str())
}

fn has_header(field: &FieldCondition, headers: &HeaderMap) -> bool {
    let is_it = |value: &HeaderValue| field.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == value.as_bytes());
    headers.get_all(field.name.as_str()).any(is_it)
}

fn has_parameter(field: &FieldCondition, query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == field.name && field.value.as_ref().is_none_or(|wanted| *wanted == value))
}

pub(super) fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
