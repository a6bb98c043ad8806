//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::LOCAL;
use super::instruments::Open;
use crate::drain::Connected;

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address, as the socket or the PROXY header tells it; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether it came through TLS.
    pub is_tls: bool,
    /// Its certificate, which was verified, as a `Client-Cert` field tells it (RFC 9440 section 2.1).
    pub certificate: Option<String>,
    _counted: (Connected, Open),
}

impl Peer {
    pub(super) fn new(
        address: Option<SocketAddr>,
        is_tls: bool,
        certificate: Option<String>,
        counted: (Connected, Open),
    ) -> Rc<Self> {
        Rc::new(Self { address, is_tls, certificate, _counted: counted })
    }

    /// Its address, an IPv4 one as such also where it came by an IPv6 socket; this machine's own for one on a Unix socket.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.unwrap_or(LOCAL).ip().to_canonical()
    }
}
