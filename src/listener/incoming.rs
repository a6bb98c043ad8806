//! A request as a server takes it from its connection.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use actix_http::Request;
use actix_http::header::HeaderMap;

use super::peer::Peer;

/// A request without its body. A clone is the same one.
#[derive(Clone)]
pub struct Incoming(Rc<Parts>);

struct Parts {
    request: Request<()>,
    peer: Option<Rc<Peer>>,
}

impl Incoming {
    /// A request that came from there.
    #[must_use]
    pub fn new(request: Request<()>, peer: Option<Rc<Peer>>) -> Self {
        Self(Rc::new(Parts { request, peer }))
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
