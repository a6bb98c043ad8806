//! A request as a server takes it from its connection.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use actix_http::header::HeaderMap;
use actix_http::{HttpMessage, Payload, Request};

use super::peer::Peer;

/// A request without its body. A clone is the same one.
#[derive(Clone)]
pub struct Incoming(Rc<Parts>);

struct Parts {
    request: Request<()>,
    peer: Option<Rc<Peer>>,
}

impl Incoming {
    /// The request and its body apart.
    #[must_use]
    pub fn new(request: Request) -> (Self, Payload) {
        // actix-http attaches it to a connection of HTTP/1.1, `http2` to each request
        let peer = request.conn_data::<Rc<Peer>>().cloned();
        let peer = peer.or_else(|| request.extensions().get::<Rc<Peer>>().cloned());
        let (request, payload) = request.replace_payload(Payload::None);
        (Self(Rc::new(Parts { request, peer })), payload)
    }

    /// Who is at the other end of the connection; `None` where no [`super::serve`] took it.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.0.peer.as_deref()
    }

    /// Its fields.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.request.head().headers
    }

    /// The raw query without its `?`; empty for none.
    #[must_use]
    pub fn query_string(&self) -> &str {
        self.0.request.uri().query().unwrap_or_default()
    }
}

impl Deref for Incoming {
    type Target = Request<()>;

    fn deref(&self) -> &Request<()> {
        &self.0.request
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Incoming").field(&self.0.request).finish()
    }
}
