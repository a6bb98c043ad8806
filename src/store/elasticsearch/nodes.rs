//! The addresses of one cluster: used in turn, and passed over for a while where one fails.
//!
//! Where several are configured, one that was not spoken to yet or that failed is asked something small before it is
//! trusted with a request, so that a machine that swallows everything holds up nobody for long. With one address there is
//! nothing to choose, and each request goes there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::elasticsearch::cert::{Certificate, CertificateValidation};
use ::elasticsearch::http::headers::HeaderMap;
use ::elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use ::elasticsearch::http::{Method, StatusCode};
use url::Url;

use super::super::{ElasticsearchSettings, StoreError};
use super::access::Access;

/// A bulk of some megabytes takes a busy server seconds; beyond this it is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that is there answers in milliseconds; a collection of garbage may take it a second or two.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an address is passed over after it failed, doubled with each further failure up to the second number: a
/// restart takes some ten seconds, and one that is gone for good is asked once a minute.
const FIRST_PASS: Duration = Duration::from_secs(1);
const LAST_PASS: Duration = Duration::from_secs(60);

/// One address.
pub(super) struct Node {
    pub transport: Transport,
    /// The URL without credentials, for messages.
    pub address: String,
    pub access: Access,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not spoken to yet.
    Unknown,
    Here,
    /// Failed this often in a row; passed over until then.
    Away {
        failures: u32,
        until: Instant,
    },
}

/// All addresses, at least one.
pub(super) struct Nodes {
    list: Vec<Node>,
    turn: AtomicUsize,
}

impl Nodes {
    /// Prepares a client for each address; sends nothing.
    ///
    /// # Errors
    /// [`StoreError::Setting`] when an address is none or the file of the CA cannot be used.
    pub fn new(settings: &ElasticsearchSettings) -> Result<Self, StoreError> {
        let mut list = Vec::with_capacity(settings.urls.len());
        for url in &settings.urls {
            list.push(Node::new(url, settings)?);
        }
        if list.is_empty() {
            return Err(setting("Elasticsearch", "no address is configured; set `esAddr`"));
        }
        Ok(Self { list, turn: AtomicUsize::new(0) })
    }

    /// All addresses, for messages.
    pub fn addresses(&self) -> String {
        self.list.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Whether there is a choice.
    pub fn are_several(&self) -> bool {
        self.list.len() > 1
    }

    /// In which order to try them for one request, each once: by turns those that are here or unknown, then those that
    /// failed, the one first whose time is over first.
    pub fn in_turn(&self) -> Vec<&Node> {
        let (now, first) = (Instant::now(), self.turn.fetch_add(1, Ordering::Relaxed));
        let states: Vec<State> = self.list.iter().map(Node::state).collect();
        order(&states, first, now).into_iter().map(|at| &self.list[at]).collect()
    }
}

/// See [`Nodes::in_turn`].
fn order(states: &[State], first: usize, now: Instant) -> Vec<usize> {
    let mut order: Vec<usize> = (0..states.len()).map(|at| (first % states.len() + at) % states.len()).collect();
    order.sort_by_key(|at| match states[*at] {
        State::Away { until, .. } if until > now => Some(until),
        _ => None,
    });
    order
}

impl Node {
    fn new(text: &str, settings: &ElasticsearchSettings) -> Result<Self, StoreError> {
        let given = Url::parse(text).map_err(|error| setting("esAddr", format!("it is no URL: {error}")))?;
        let mut url = given.clone();
        if !matches!(url.scheme(), "http" | "https") || url.set_username("").is_err() || url.set_password(None).is_err()
        {
            return Err(setting("esAddr", "it is no http URL"));
        }
        let address = url.as_str().trim_end_matches('/').to_owned();
        let access = Access::of(&given, settings.login.as_ref());
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url))
            .timeout(REQUEST_TIMEOUT)
            // the address that was named is the one that is called
            .disable_proxy();
        if let Some(credentials) = access.credentials() {
            builder = builder.auth(credentials);
        }
        if let Some(path) = &settings.ca_file {
            let unusable = |error: &dyn std::fmt::Display| {
                setting(&address, format!("`es.caFile` `{}` cannot be used: {error}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| unusable(&error))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder.build().map_err(|error| setting(&address, error.to_string()))?;
        Ok(Self { transport, address, access, state: Mutex::new(State::Unknown) })
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may be sent there: it was here the last time, or answers now.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn answers(&self) -> Result<(), ::elasticsearch::Error> {
        if self.state() == State::Here {
            return Ok(());
        }
        let (headers, timeout) = (HeaderMap::new(), Some(PROBE_TIMEOUT));
        // what it says of it matters to the request that follows
        self.transport.send(Method::Get, "/", headers, None::<&()>, None::<bytes::Bytes>, timeout).await.map(drop)
    }

    /// Notes that it answered.
    pub fn is_here(&self) {
        let before = std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Here);
        if matches!(before, State::Away { .. }) {
            log::info!("an address of elasticsearch answers again address={}", self.address);
        }
    }

    /// Notes that it did not, and passes it over for a while.
    pub fn failed(&self, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *state;
        *state = before.after_failure(Instant::now());
        drop(state);
        if !matches!(before, State::Away { .. }) {
            log::warn!(
                "an address of elasticsearch fails, others are used reason=\"{reason}\" address={}",
                self.address
            );
        }
    }
}

impl State {
    fn after_failure(self, now: Instant) -> Self {
        let failures = match self {
            // of requests that fail together, the first counts
            Self::Away { until, .. } if until > now => return self,
            Self::Away { failures, .. } => failures.saturating_add(1),
            Self::Unknown | Self::Here => 0,
        };
        let wait = FIRST_PASS.saturating_mul(1 << failures.min(10)).min(LAST_PASS);
        Self::Away { failures, until: now + wait }
    }
}

/// Whether an answer with this status, that is no word of Elasticsearch's own, says that nobody stands behind a proxy.
pub(super) fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

pub(super) fn setting(address: &str, hint: impl Into<String>) -> StoreError {
    StoreError::Setting { address: address.to_owned(), hint: hint.into(), source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_used_in_turn_and_those_that_fail_last() {
        let now = Instant::now();
        let away = |seconds| State::Away { failures: 0, until: now + Duration::from_secs(seconds) };
        let (here, over) = (State::Here, State::Away { failures: 3, until: now });
        for (states, first, expected) in [
            (vec![here, State::Unknown, here], 0, vec![0, 1, 2]),
            (vec![here, here, here], 7, vec![1, 2, 0]),
            (vec![here, away(1), here], 1, vec![2, 0, 1]),
            (vec![away(9), away(1), here], 0, vec![2, 1, 0]),
            (vec![here, over], 1, vec![1, 0]),
            (vec![away(1)], usize::MAX, vec![0]),
        ] {
            assert_eq!(order(&states, first, now), expected, "{states:?}");
        }
    }

    #[test]
    fn one_that_fails_again_is_passed_over_for_longer() {
        let mut now = Instant::now();
        let mut state = State::Here;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            state = state.after_failure(now);
            assert_eq!(state.after_failure(now), state, "a request that was on its way");
            let State::Away { until, .. } = state else { panic!("{state:?}") };
            assert_eq!(until - now, Duration::from_secs(seconds));
            now = until;
        }
    }
}
