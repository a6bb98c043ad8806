//! Who asks: the other end of the connection, or, where that is a trusted proxy, whom it tells of.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use actix_http::HttpMessage;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use crate::listener::{Incoming, Networks, Peer};
use crate::upstream::Forwarded;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What a trusted proxy tells of a request; kept with the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The first address from the right that is no trusted proxy's.
    pub ip: IpAddr,
    /// The field as it came, with the proxy's own address added; empty where there was none.
    pub chain: String,
    pub proto: Option<&'static str>,
    pub host: Option<String>,
}

/// The client's address. `X-Forwarded-For` is anybody's to write, so it counts only from trusted proxies ([`settle`]).
pub(super) fn client_ip(request: &Incoming) -> IpAddr {
    match request.extensions().get::<Rc<Told>>() {
        Some(told) => told.ip,
        None => peer_ip(request),
    }
}

/// Reads what a trusted proxy tells, before anybody asks for the client's address. Without trusted proxies it does nothing.
pub(super) fn settle(request: &Incoming, trusted: &Networks) {
    if trusted.is_empty() {
        return;
    }
    let is_local = request.peer().is_some_and(|peer| peer.address.is_none());
    let ip = peer_ip(request);
    if if is_local { trusted.hold_unix() } else { trusted.hold(ip) } {
        let told = Rc::new(read(request.headers(), ip, trusted));
        request.extensions_mut().insert(told);
    }
}

/// Whether the client came by TLS: to this gateway, or as a trusted proxy tells ([`settle`]).
pub(super) fn is_secure(request: &Incoming) -> bool {
    let told = request.extensions().get::<Rc<Told>>().and_then(|told| told.proto);
    told.map_or_else(|| request.peer().is_some_and(|peer| peer.is_tls), |proto| proto == "https")
}

/// What the service is told.
pub(super) struct Teller<'r> {
    told: Option<Rc<Told>>,
    request: &'r Incoming,
}

impl<'r> Teller<'r> {
    pub fn new(request: &'r Incoming) -> Self {
        Self { told: request.extensions().get::<Rc<Told>>().cloned(), request }
    }

    /// The host that a trusted proxy was asked for.
    pub fn told_host(&self) -> Option<&str> {
        self.told.as_deref()?.host.as_deref()
    }

    /// With the client's own `Host`, and as a trusted proxy has it.
    pub fn forwarded(&self) -> Forwarded<'_> {
        let own_host = || self.request.headers().get(HOST).and_then(text).unwrap_or_default();
        let peer = self.request.peer();
        let own_proto = if peer.is_some_and(|peer| peer.is_tls) { "https" } else { "http" };
        let told = self.told.as_deref();
        Forwarded {
            client: told.map_or_else(|| peer_ip(self.request), |told| told.ip),
            chain: told.map(|told| told.chain.as_str()).filter(|chain| !chain.is_empty()),
            proto: told.and_then(|told| told.proto).unwrap_or(own_proto),
            host: told.and_then(|told| told.host.as_deref()).unwrap_or_else(own_host),
            certificate: peer.and_then(|peer| peer.certificate.as_deref()),
        }
    }
}

fn peer_ip(request: &Incoming) -> IpAddr {
    request.peer().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), Peer::ip)
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// What the fields of a request tell that a trusted proxy sent.
pub(super) fn read(fields: &HeaderMap, proxy: IpAddr, trusted: &Networks) -> Told {
    let mut chain = String::new();
    for line in fields.get_all(FOR) {
        // what is no text is kept as such: left out, it would take with it what a proxy wrote behind it
        chain.extend(line.as_bytes().iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }));
        chain.push_str(", ");
    }
    let ip = client_of(&chain, proxy, trusted);
    if !chain.is_empty() && write!(chain, "{proxy}").is_err() {
        chain.clear(); // writing into a String cannot fail
    }
    let proto = fields.get(PROTO).and_then(text).and_then(|proto| match proto.trim() {
        proto if proto.eq_ignore_ascii_case("https") => Some("https"),
        proto if proto.eq_ignore_ascii_case("http") => Some("http"),
        _ => None,
    });
    let host = fields.get(FORWARDED_HOST).and_then(text).map(str::trim).filter(|host| super::host::is_valid(host));
    Told { ip, chain, proto, host: host.filter(|host| !host.is_empty()).map(str::to_owned) }
}

/// From the right: what a trusted proxy wrote is believed, and the first that is no trusted proxy is the client. Left of it
/// anything may stand.
fn client_of(chain: &str, proxy: IpAddr, trusted: &Networks) -> IpAddr {
    let mut client = proxy;
    for entry in chain.rsplit(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some(ip) = address(entry) else { return client };
        client = ip;
        if !trusted.hold(ip) {
            return client;
        }
    }
    client
}

/// An address, also with a port as some proxies write it: `1.2.3.4:5`, `[::1]:5`, `[::1]`.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = || bare.unwrap_or(entry).parse::<IpAddr>().ok();
    let with_port = || entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    alone().or_else(with_port).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Network;

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let trusted = Networks(vec![Network::parse("10.0.0.0/8").unwrap(), Network::parse("::1").unwrap()]);
        for (chain, client) in [
            ("", "10.0.0.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("192.0.2.1:4711, 10.0.0.2, [::1]:80", "192.0.2.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1,, 10.0.0.2,", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("evil", "10.0.0.1"),
        ] {
            let found = client_of(chain, "10.0.0.1".parse().unwrap(), &trusted);
            assert_eq!(found.to_string(), client, "{chain}");
        }
    }
}
