//! Sends plain requests on to HTTPS, where `tls.redirectToHttps` says so.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, LOCATION};
use bytes::Bytes;

use super::answer::{Answer, Body};
use super::client::{self, Teller};
use super::respond::Failure;
use super::{Settings, asked};
use crate::listener::Incoming;

/// Where an issuer of certificates looks, by plain HTTP (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// The port that an `https:` address has without a word.
const USUAL_PORT: u16 = 443;

/// The way to HTTPS for a plain request, by 308, so that method and body stay. `None`: it is served as it came, over TLS (here or at
/// a trusted proxy) or for an issuer. [`client::settle`] goes before.
///
/// # Errors
/// 400 for a host or a path that another reader might understand otherwise, and for one who names no host.
pub(super) fn elsewhere(request: &Incoming, settings: &Settings) -> Option<Result<Answer, Failure>> {
    let port = settings.tls.as_ref()?.redirect?.port();
    if client::is_secure(request) {
        return None;
    }
    redirect(request, port).transpose()
}

fn redirect(request: &Incoming, port: u16) -> Result<Option<Answer>, Failure> {
    let host = asked::host_of(request);
    if asked::unambiguous(request.path(), host)?.starts_with(CHALLENGES) {
        return Ok(None);
    }
    let teller = Teller::new(request);
    let name = without_port(teller.told_host().unwrap_or(host)); // a proxy may ask by another name than its client did
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    if name.is_empty() || !target.starts_with('/') {
        let why = "this gateway is for HTTPS, and without a host and a path in the request there is no address to send it on to";
        return Err(Failure::BadRequest(why.to_owned()));
    }
    let port = if port == USUAL_PORT { String::new() } else { format!(":{port}") };
    let location = HeaderValue::from_str(&format!("https://{name}{port}{target}"))
        .map_err(|_| Failure::BadRequest("the path cannot be part of a redirect".to_owned()))?;
    let mut head = HttpResponse::new(StatusCode::PERMANENT_REDIRECT);
    head.headers_mut().insert(LOCATION, location);
    Ok(Some(Answer { head, body: Body::Whole(Bytes::new()) }))
}

/// RFC 3986 section 3.2: an address of IPv6 stands in brackets.
fn without_port(host: &str) -> &str {
    match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_from_its_port() {
        for (host, name) in
            [("a.test", "a.test"), ("a.test:80", "a.test"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(without_port(host), name);
        }
    }
}
