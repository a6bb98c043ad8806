//! Copies of some requests for another service, whose answers are compared with those that clients get.
//!
//! ```text
//! request ─┬─ the call ──────────────────► the client's answer ─┐ told, without waiting
//!          └─ a task: the same call of the mirror ──────────────┴─► alike? counted, timed, logged
//! ```
//! The client waits for none of it. A body that is passed on as it comes is kept as it passes ([`tee`]), and the copy made once all
//! of it has; one that is too long, or no body but another protocol, is not copied. Of a long answer only the status is compared.

mod tee;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use bytes::Bytes;
use prometheus::{Histogram, IntCounter};
use tokio::sync::oneshot;

use self::tee::NotKept;
use super::AnswerForm;
use super::answer::{self, Answer, Body};
use super::rule::{Call, Compare, Mirror};
use crate::balance::Turns;
use crate::metrics::Metrics;
use crate::trace::TraceContext;
use crate::upstream::{Forwarded, Policy, RequestBody, Upstream, UpstreamRequest};

/// Copies under way on one route; each holds a connection and up to two answers.
const MOST_COPIES: usize = 256;
/// How often differences of one route are told; those in between are counted.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A route's mirror at work.
pub(super) struct Reflector {
    mirror: Mirror,
    turns: Turns,
    shared: Arc<Shared>,
}

/// What the copies of a route share.
struct Shared {
    route: Arc<str>,
    compare: Compare,
    under_way: AtomicUsize,
    results: [IntCounter; Found::ALL.len()],
    skipped: [IntCounter; Why::ALL.len()],
    seconds: [Histogram; 2],
    told: Mutex<Told>,
}

/// What was last said in the log.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Same,
    /// Another status.
    Status,
    /// The same status, another body.
    Body,
    /// The mirror gave no answer.
    MirrorFailed,
    /// The client got no answer of the service.
    CallFailed,
    /// It was not made: see [`Why`].
    Skipped,
}

/// Why a copy was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Too many are under way.
    Busy,
    /// Its body is too long to be kept.
    Long,
    /// Its body did not come to its end.
    Unfinished,
    /// It asks for another protocol.
    Upgrade,
}

impl Why {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Busy, "busy"), (Self::Long, "long"), (Self::Unfinished, "unfinished"), (Self::Upgrade, "upgrade")];
}

impl Found {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Same, "same"),
        (Self::Status, "status"),
        (Self::Body, "body"),
        (Self::MirrorFailed, "mirror_failed"),
        (Self::CallFailed, "call_failed"),
        (Self::Skipped, "skipped"),
    ];
}

/// What one side answered.
struct Seen {
    status: StatusCode,
    /// `None`: it is not in memory.
    body: Option<Bytes>,
    took: Duration,
}

/// A copy under way, which is told what the client gets. Dropped without: the client got no answer of the service.
pub(super) struct Copy {
    started: Instant,
    teller: oneshot::Sender<Seen>,
}

impl Reflector {
    pub fn new(mirror: &Mirror, route: &Arc<str>, metrics: &Metrics) -> Self {
        let counter =
            metrics.counter("mirrored_total", "requests copied to another service, by result", &["route", "result"]);
        let skipped = metrics.counter(
            "mirror_skipped_total",
            "requests that were to be copied to another service and were not",
            &["route", "reason"],
        );
        let seconds =
            metrics.seconds("mirror_seconds", "how long both answers to a copied request took", &["route", "side"]);
        let shared = Shared {
            route: route.clone(),
            compare: mirror.compare,
            under_way: AtomicUsize::new(0),
            results: Found::ALL.map(|(_, name)| counter.with_label_values(&[route, name])),
            skipped: Why::ALL.map(|(_, name)| skipped.with_label_values(&[route, name])),
            seconds: ["service", "mirror"].map(|side| seconds.with_label_values(&[route, side])),
            told: Mutex::default(),
        };
        Self { mirror: mirror.clone(), turns: Turns::default(), shared: Arc::new(shared) }
    }

    /// Starts a copy of this request, where it is its turn. Must be called within a `LocalSet`.
    #[expect(clippy::disallowed_methods, reason = "no end of a process has to wait for a copy")]
    pub fn reflect(&self, upstream: &Upstream, request: &mut UpstreamRequest<'_>, call: &Call) -> Option<Copy> {
        let share = i64::from(self.mirror.permille);
        let is_its_turn = self.turns.take_weighted(2, |place| Some(if place == 0 { share } else { 1000 - share }));
        if is_its_turn != Some(0) {
            return None;
        }
        let under_way = UnderWay::enter(&self.shared)?;
        let coming = match &mut request.body {
            RequestBody::Stream { length: Some(length), .. } if *length > tee::KEPT_BYTES as u64 => Err(Why::Long),
            RequestBody::Stream { parts, .. } => Ok(Some(tee::keep(parts))),
            RequestBody::Upgrade(_) => Err(Why::Upgrade),
            RequestBody::Empty | RequestBody::Whole(_) => Ok(None),
        };
        let coming = coming.map_err(|why| self.shared.skip(why)).ok()?;
        let mut owned = Owned::of(request);
        let (teller, told) = oneshot::channel();
        let started = Instant::now();
        let (upstream, group, form) = (upstream.clone(), self.mirror.to.group().to_owned(), call.answer);
        let policy = Policy { attempts: 1, ..call.policy.clone() }; // a copy is not worth a second try
        tokio::task::spawn_local(async move {
            if let Some(coming) = coming {
                match coming.await.unwrap_or(Err(NotKept::Unfinished)) {
                    Ok(body) => owned.body = Some(body),
                    Err(NotKept::Long) => return under_way.0.skip(Why::Long),
                    Err(NotKept::Unfinished) => return under_way.0.skip(Why::Unfinished),
                }
            }
            let mirrored = owned.send(&upstream, &group, &policy, form, Instant::now()).await;
            let client = told.await.ok();
            under_way.0.compare(client, mirrored, &owned);
        });
        Some(Copy { started, teller })
    }
}

impl Copy {
    /// The client gets this.
    pub fn tell(self, answer: &Answer) {
        // who would have listened may have ended with its thread
        drop(self.teller.send(Seen::of(answer, self.started)));
    }
}

impl Seen {
    fn of(answer: &Answer, started: Instant) -> Self {
        let body = match &answer.body {
            Body::None => Some(Bytes::new()),
            Body::Whole(bytes) => Some(bytes.clone()),
            Body::Passing(_) | Body::Messages(_) | Body::Encoded(_) => None,
        };
        Self { status: answer.head.status(), body, took: started.elapsed() }
    }
}

/// One of the copies under way.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn enter(shared: &Arc<Shared>) -> Option<Self> {
        let guard = Self(shared.clone());
        if shared.under_way.fetch_add(1, Ordering::Relaxed) < MOST_COPIES {
            return Some(guard);
        }
        shared.skip(Why::Busy);
        None
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn count(&self, found: Found) {
        if let Some(place) = Found::ALL.iter().position(|(known, _)| *known == found) {
            self.results[place].inc();
        }
    }

    fn skip(&self, why: Why) {
        self.count(Found::Skipped);
        if let Some(place) = Why::ALL.iter().position(|(known, _)| *known == why) {
            self.skipped[place].inc();
        }
    }

    fn compare(&self, client: Option<Seen>, mirrored: Result<Seen, String>, request: &Owned) {
        let (found, why) = match (&client, &mirrored) {
            (_, Err(error)) => (Found::MirrorFailed, error.clone()),
            (None, Ok(_)) => (Found::CallFailed, "the client got no answer of the service".to_owned()),
            (Some(client), Ok(mirrored)) => {
                for (seen, seconds) in [client, mirrored].into_iter().zip(&self.seconds) {
                    seconds.observe(seen.took.as_secs_f64());
                }
                self.difference(client, mirrored).unwrap_or((Found::Same, String::new()))
            }
        };
        self.count(found);
        if found != Found::Same {
            let id = request.context.request_id;
            log::debug!("mirror differs route=\"{}\" request_id={id} why=\"{why}\"", self.route);
            self.tell(&format!("request_id={id} why=\"{why}\""));
        }
    }

    fn difference(&self, client: &Seen, mirrored: &Seen) -> Option<(Found, String)> {
        if client.status != mirrored.status {
            let why = format!("status {} for the client, {} of the mirror", client.status, mirrored.status);
            return Some((Found::Status, why));
        }
        let (Some(one), Some(other), Compare::Body) = (&client.body, &mirrored.body, self.compare) else { return None };
        if one == other {
            return None;
        }
        let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        let why = format!("bodies of {} and {} bytes differ at byte {at}", one.len(), other.len());
        Some((Found::Body, why))
    }

    /// Says it in the log, once in a while.
    fn tell(&self, what: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            told.since += 1;
            return;
        }
        let since = std::mem::take(&mut told.since);
        told.at = Some(Instant::now());
        log::warn!("mirror differs route=\"{}\" {what} not_told={since}", self.route);
    }
}

/// A request that outlives the client's.
struct Owned {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    content_type: Option<&'static str>,
    /// `None`: not even a length.
    body: Option<Bytes>,
    context: TraceContext,
    call_key: Option<String>,
    forwarded: Option<OwnedForwarded>,
}

struct OwnedForwarded {
    client: std::net::IpAddr,
    chain: Option<String>,
    proto: &'static str,
    host: String,
    certificate: Option<String>,
}

impl Owned {
    /// Without a body that is still to come.
    fn of(request: &UpstreamRequest<'_>) -> Self {
        let body = match &request.body {
            RequestBody::Whole(bytes) => Some(bytes.clone()),
            RequestBody::Empty | RequestBody::Stream { .. } | RequestBody::Upgrade(_) => None,
        };
        let headers = request.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let forwarded = request.forwarded.map(|forwarded| OwnedForwarded {
            client: forwarded.client,
            chain: forwarded.chain.map(str::to_owned),
            proto: forwarded.proto,
            host: forwarded.host.to_owned(),
            certificate: forwarded.certificate.map(str::to_owned),
        });
        Self {
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            query: request.query.to_owned(),
            headers: headers.collect(),
            content_type: request.content_type,
            body,
            context: *request.context,
            call_key: request.call_key.map(str::to_owned),
            forwarded,
        }
    }

    async fn send(
        &self,
        upstream: &Upstream,
        group: &str,
        policy: &Policy,
        form: AnswerForm,
        started: Instant,
    ) -> Result<Seen, String> {
        let request = UpstreamRequest {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect(),
            content_type: self.content_type,
            body: self.body.clone().map_or(RequestBody::Empty, RequestBody::Whole),
            context: &self.context,
            call_key: self.call_key.as_deref(),
            forwarded: self.forwarded.as_ref().map(|forwarded| Forwarded {
                client: forwarded.client,
                chain: forwarded.chain.as_deref(),
                proto: forwarded.proto,
                host: &forwarded.host,
                certificate: forwarded.certificate.as_deref(),
            }),
            tries: None,
        };
        let answer = upstream.call(group, None, request, policy).await.map_err(|error| error.to_string())?;
        let answer = answer::make(answer, form, self.method == "HEAD").await.map_err(|error| error.to_string())?;
        Ok(Seen::of(&answer, started))
    }
}
