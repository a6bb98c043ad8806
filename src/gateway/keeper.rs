//! Holds clients to a route's terms. Made once with the table of routes; a route without terms has none.

use std::borrow::Cow;
use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;

use super::Terms;
use super::access::{Gate, Known, Sources};
use super::respond::Failure;
use crate::upstream::headers;

/// What lasts longer than a table of routes.
#[derive(Clone, Default)]
pub(super) struct Kept {
    /// Published keys of tokens.
    pub sources: Sources,
}

/// Keeps a route.
pub(super) struct Keeper {
    gate: Option<Gate>,
    /// Headers that only this gateway sends; in lower case.
    own_headers: Vec<String>,
}

/// What goes on to the service of a request that was let in.
pub(super) struct Passage<'r> {
    keeper: Option<&'r Keeper>,
    /// The query without what is not for the service.
    pub query: Cow<'r, str>,
    /// What the service is told besides, by headers in lower case.
    told: Vec<(String, HeaderValue)>,
}

impl Keeper {
    /// `None`: there is nothing to do.
    pub fn new(terms: &Terms, known: &Known) -> Option<Self> {
        if *terms == Terms::default() && known.is_empty() {
            return None;
        }
        Some(Self { gate: Gate::new(&terms.access, known), own_headers: known.own_headers.clone() })
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// 401, 403, 503.
    pub async fn admit<'r>(&'r self, request: &'r HttpRequest, client: IpAddr) -> Result<Passage<'r>, Failure> {
        let query = request.query_string();
        let mut passage = Passage { keeper: Some(self), query: Cow::Borrowed(query), told: Vec::new() };
        if let Some(gate) = &self.gate {
            gate.check_address(client)?;
            if let Some(admitted) = gate.check_caller(request.headers(), query).await? {
                passage.told = admitted.told;
            }
            passage.query = gate.query(query);
        }
        Ok(passage)
    }

    /// Whether a header that the client sent is not for the service.
    fn hides(&self, name: &str, value: &[u8]) -> bool {
        self.own_headers.iter().any(|own| headers::same(own, name))
            || self.gate.as_ref().is_some_and(|gate| gate.hides(name, value))
    }
}

impl<'r> Passage<'r> {
    /// Through a route that asks nothing.
    pub fn free(request: &'r HttpRequest) -> Self {
        Self { keeper: None, query: Cow::Borrowed(request.query_string()), told: Vec::new() }
    }

    /// The headers for the service.
    pub fn headers<'s>(&'s self, request: &'s HttpRequest) -> Vec<(&'s str, &'s [u8])> {
        let sent = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let Some(keeper) = self.keeper else { return sent.collect() };
        let told = self.told.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        sent.filter(|(name, value)| !keeper.hides(name, value)).chain(told).collect()
    }
}
