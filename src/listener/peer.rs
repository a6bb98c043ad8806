//! Who is at the other end of a connection, and whether it has a request running.

use std::cell::Cell;
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
    /// Requests that began.
    begun: Cell<u64>,
    /// Those of them that are not yet answered whole.
    running: Cell<u32>,
    _counted: (Connected, Open),
}

impl Peer {
    pub(super) fn new(
        address: Option<SocketAddr>,
        is_tls: bool,
        certificate: Option<String>,
        counted: (Connected, Open),
    ) -> Rc<Self> {
        let (begun, running) = (Cell::new(0), Cell::new(0));
        Rc::new(Self { address, is_tls, certificate, begun, running, _counted: counted })
    }

    /// Its address, an IPv4 one as such also where it came by an IPv6 socket; this machine's own for one on a Unix socket.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.unwrap_or(LOCAL).ip().to_canonical()
    }

    /// Counts a request as running until what is returned is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.begun.set(self.begun.get() + 1);
        self.running.set(self.running.get() + 1);
        Busy(self.clone())
    }

    /// Requests that began so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Whether one runs.
    pub(super) fn is_busy(&self) -> bool {
        self.running.get() > 0
    }
}

/// A running request.
#[derive(Debug)]
pub(super) struct Busy(Rc<Peer>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}
