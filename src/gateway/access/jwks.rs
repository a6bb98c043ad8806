//! Keys that an issuer publishes (RFC 7517), read again on an interval and when a token names one that is not known.
//!
//! ```text
//! request: key known ─► verify        unknown ─► ask (at most once in 10 s) ─► wait up to 5 s ─► verify, or 401
//! thread:  read ─ good: keep for `refresh` ─┐      none was ever read: 503
//!            ▲    └ bad: keep the old, again in 1 s, 2 s, … 60 s ┘
//! ```
//! A key that is no public one (`oct`) is never used: whoever reads it could sign with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use awc::{Client, Connector};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use super::JwksPlace;
use crate::backoff::Backoff;
use crate::causes;
use crate::shutdown::Shutdown;
use crate::trust::{self, Roots};

/// A key set has some hundred bytes a key.
const MOST_BYTES: usize = 1 << 20;
/// The whole of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a key that was not known.
const WAIT: Duration = Duration::from_secs(5);
/// Tokens with invented keys make no more reads than this allows.
const LEAST_BETWEEN: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer does not publish it.
    Unknown,
    /// The issuer could not be asked.
    Away,
}

/// Keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Published>,
}

#[derive(Debug)]
struct Published {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: Arc<DecodingKey>,
}

/// A set whose keys are read one by one: one of a kind that nobody knows yet must not spoil the others.
#[derive(Deserialize)]
struct Raw {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a set; what cannot verify tokens is left out.
    ///
    /// # Errors
    /// That it is none, or that nothing is left.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let raw: Raw =
            crate::json::value(json).map_err(|error| format!("is no JSON Web Key Set (RFC 7517): {error}"))?;
        let keys: Vec<Published> = raw.keys.into_iter().filter_map(Published::new).collect();
        if keys.is_empty() {
            return Err("has no RSA, P-256, P-384 or Ed25519 key that verifies signatures".to_owned());
        }
        Ok(Self { keys })
    }

    /// The key that a token names; one that names none means the only one that can be meant.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
        let fits = |key: &&Published| {
            key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|of_key| of_key == algorithm)
                && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        let mut fitting = self.keys.iter().filter(fits);
        let first = fitting.next()?;
        (id.is_some() || fitting.next().is_none()).then(|| first.key.clone())
    }
}

impl Published {
    fn new(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let is_public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_));
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|key| key.family() != AlgorithmFamily::Hmac)?;
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(named) => Some(named.to_string().parse().ok()?), // one for encryption is not for us
        };
        (for_signatures && is_public).then(|| Self { id: jwk.common.key_id, algorithm, key: Arc::new(key) })
    }
}

/// What a source is known by.
type Place = (JwksPlace, Duration);

/// The sources that are read: each once, whoever names it, and beyond a reload of the config.
#[derive(Clone, Default)]
pub(in crate::gateway) struct Sources {
    started: Arc<Mutex<BTreeMap<Place, Weak<KeySource>>>>,
}

impl Sources {
    pub(super) fn get(&self, from: &JwksPlace, refresh: Duration) -> Arc<KeySource> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.retain(|_, source| source.strong_count() > 0);
        let name = (from.clone(), refresh);
        if let Some(source) = started.get(&name).and_then(Weak::upgrade) {
            return source;
        }
        let source = KeySource::start(from.clone(), refresh);
        started.insert(name, Arc::downgrade(&source));
        source
    }
}

/// What a source's readers see.
#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    is_reading: bool,
}

/// The keys of one issuer, kept up to date by a thread until the last user is gone.
pub(super) struct KeySource {
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
    asked: Mutex<Option<Instant>>,
    ending: Shutdown,
}

impl KeySource {
    fn start(from: JwksPlace, refresh: Duration) -> Arc<Self> {
        let source = Arc::new(Self {
            state: watch::Sender::new(State { keys: None, is_reading: true }),
            wanted: Arc::default(),
            asked: Mutex::default(),
            ending: Shutdown::new(),
        });
        let reader = Reader {
            from,
            refresh,
            state: source.state.clone(),
            wanted: source.wanted.clone(),
            ending: source.ending.clone(),
        };
        // awc's client needs a thread with a system of actix
        let work = move || actix_web::rt::System::new().block_on(reader.run());
        if let Err(error) = std::thread::Builder::new().name("goms-jwks".to_owned()).spawn(work) {
            log::error!("cannot start the thread that reads the keys of tokens, they are all refused: {error}");
            source.state.send_modify(|state| state.is_reading = false);
        }
        source
    }

    /// The key of this id for tokens of this algorithm.
    ///
    /// # Errors
    /// [`NoKey`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<DecodingKey>, NoKey> {
        let mut state = self.state.subscribe();
        if let Some(key) = state.borrow_and_update().keys.as_ref().and_then(|keys| keys.find(id, algorithm)) {
            return Ok(key);
        }
        self.ask();
        let read = tokio::time::timeout(WAIT, state.wait_for(|state| !state.is_reading)).await;
        let keys = read.ok().and_then(Result::ok).and_then(|state| state.keys.clone());
        match keys.as_ref().or(self.state.borrow().keys.as_ref()) {
            Some(keys) => keys.find(id, algorithm).ok_or(NoKey::Unknown),
            None => Err(NoKey::Away),
        }
    }

    /// Has the keys read again, unless that was asked for a moment ago.
    fn ask(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.borrow().is_reading || asked.is_some_and(|at| at.elapsed() < LEAST_BETWEEN) {
            return;
        }
        *asked = Some(Instant::now());
        self.state.send_modify(|state| state.is_reading = true);
        self.wanted.notify_one();
    }
}

impl Drop for KeySource {
    fn drop(&mut self) {
        self.ending.begin();
    }
}

/// The thread's part.
struct Reader {
    from: JwksPlace,
    refresh: Duration,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
    ending: Shutdown,
}

impl Reader {
    async fn run(self) {
        let mut retry = Backoff::seeded(FIRST_RETRY, LONGEST_RETRY);
        let mut was_good = true;
        loop {
            let read = tokio::select! {
                () = self.ending.begun() => return,
                read = self.read() => read.and_then(|bytes| KeySet::parse(&bytes).map_err(|why| format!("it {why}"))),
            };
            let wait = match read {
                Ok(keys) => {
                    log::debug!("keys of tokens read from={} keys={}", self.from, keys.keys.len());
                    if !was_good {
                        log::info!("keys of tokens are read again from={}", self.from);
                    }
                    retry = Backoff::seeded(FIRST_RETRY, LONGEST_RETRY);
                    was_good = true;
                    self.state.send_replace(State { keys: Some(Arc::new(keys)), is_reading: false });
                    self.refresh
                }
                Err(why) => {
                    if was_good {
                        log::warn!(
                            "cannot read the keys of tokens, those from before stay from={} error=\"{why}\"",
                            self.from
                        );
                    }
                    was_good = false;
                    self.state.send_modify(|state| state.is_reading = false);
                    retry.next_wait().min(self.refresh)
                }
            };
            tokio::select! {
                () = self.ending.begun() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match &self.from {
            JwksPlace::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string()),
            JwksPlace::Url(url, ca_file) => {
                let mut connector = Connector::new().timeout(CONNECT_TIMEOUT);
                if url.starts_with("https:") {
                    let roots = ca_file.as_deref().map_or(Roots::System, Roots::SystemAnd);
                    let client = trust::client(roots, None).map_err(|error| causes::chain(&error))?;
                    connector = connector.rustls_0_23(Arc::new(client));
                }
                let client = Client::builder().connector(connector).timeout(READ_TIMEOUT).disable_redirects().finish();
                let mut answer = client.get(url.as_str()).send().await.map_err(|error| error.to_string())?;
                if !answer.status().is_success() {
                    return Err(format!("it answers {}", answer.status()));
                }
                let body = answer.body().limit(MOST_BYTES);
                body.await.map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = r#"{"kty":"RSA","n":"AQAB","e":"AQAB""#;

    #[test]
    fn only_keys_that_verify_are_taken() {
        let set = format!(
            r#"{{"keys":[{RSA},"kid":"a","alg":"RS256","use":"sig"}},{RSA},"kid":"b"}},{RSA},"kid":"enc","use":"enc"}},
            {RSA},"kid":"oaep","alg":"RSA-OAEP"}},{{"kty":"oct","k":"AQAB","kid":"secret"}},{{"kty":"new"}},7,
            {{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB","kid":"c"}}]}}"#
        );
        let set = KeySet::parse(set.as_bytes()).expect("a set");
        let ids: Vec<&str> = set.keys.iter().filter_map(|key| key.id.as_deref()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        let has = |id, algorithm| set.find(id, algorithm).is_some();
        assert!(has(Some("a"), Algorithm::RS256) && !has(Some("a"), Algorithm::PS256), "its `alg` is RS256");
        assert!(has(Some("b"), Algorithm::PS256) && !has(Some("b"), Algorithm::ES256), "RSA verifies no ES256");
        assert!(!has(Some("secret"), Algorithm::HS256) && !has(Some("no"), Algorithm::RS256));
        assert!(!has(None, Algorithm::RS256), "two could be meant");
        assert!(has(None, Algorithm::ES256), "only one can be meant");
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for (text, why) in [
            ("", "is no JSON Web Key Set"),
            ("[]", "is no JSON Web Key Set"),
            ("{\"keys\":[]}", "has no RSA"),
            ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AQAB\"}]}", "has no RSA"),
        ] {
            let error = KeySet::parse(text.as_bytes()).expect_err(text);
            assert!(error.starts_with(why), "{error}");
        }
    }
}
