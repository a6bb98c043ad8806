//! Handlers of topics: threads of their own that take what a broker brings, try it, and bury what cannot be handled.
//!
//! ```text
//! broker → Deliveries (one a subscription) → worker threads → handler ─ Ok ──────────────► ack
//!                                                     ▲          │ 5xx, panic: again, later
//!                                                     └──────────┘ 4xx, or tried enough ─► bury, ack
//! ```
//! A message is not acknowledged before its handler is done, so one that is cut off comes again, wherever. The waits
//! between tries are spent here; the broker hears meanwhile that it is being worked on.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::time::{interval_at, sleep, timeout};

use super::builder::{Handler, Subscribed};
use super::calls::Calls;
use super::observe::{Observed, Observer};
use super::server::panic_text;
use super::{Context, Parts, ServeError, Service, ServiceError};
use crate::backoff::Backoff;
use crate::broker::{Broker, BrokerError, Deliveries, Delivery, Settings, Subscription};
use crate::causes::chain;
use crate::metrics::Load;
use crate::shutdown::Shutdown;
use crate::trace::{TraceBody, TraceContext, tracestate};

/// Messages of one subscription that a worker works on at once.
const AT_ONCE: usize = 16;
/// The longest wait between two tries of one message.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Between tries to subscribe where a person must correct something first.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(5);
/// Until a message that could not be buried comes again.
const BURY_AGAIN: Duration = Duration::from_secs(2);
/// What events and metrics show in the place of HTTP's method.
pub(super) const METHOD: &str = "MESSAGE";

/// The running handlers of a service's topics.
pub struct Subscribers {
    service: String,
    threads: Vec<JoinHandle<()>>,
    shutdown: Shutdown,
    limit: Arc<std::sync::Mutex<Duration>>,
    unheard: Unheard,
}

/// Topics that were not heard yet, since their broker is away.
#[derive(Clone, Debug, Default)]
pub struct Unheard(Arc<std::sync::Mutex<Vec<String>>>);

impl Unheard {
    /// Why the service is not ready yet; `None` once every topic was heard.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.first().map(|topic| format!("topic `{topic}` is not heard yet; is the broker there?"))
    }

    fn is_heard(&self, topic: &str) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = topics.iter().position(|known| known == topic) {
            topics.remove(place);
        }
    }
}

/// What every worker thread has.
struct Shared {
    broker: Arc<dyn Broker>,
    settings: Settings,
    parts: Parts,
    subscriptions: Vec<Heard>,
    shutdown: Shutdown,
    unheard: Unheard,
    /// How long handlers may finish; set when the end begins.
    limit: Arc<std::sync::Mutex<Duration>>,
}

/// One subscription. Locked while it is opened.
struct Heard {
    what: Subscribed,
    deliveries: Arc<Mutex<Option<Deliveries>>>,
}

impl Subscribers {
    /// Starts the worker threads; none where the service subscribed to nothing. Does not wait for a broker that is away.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        service: &Service,
        parts: Parts,
        broker: Arc<dyn Broker>,
        settings: Settings,
    ) -> Result<Self, ServeError> {
        let name = service.name().to_owned();
        let (shutdown, limit) = (Shutdown::new(), Arc::new(std::sync::Mutex::new(Duration::ZERO)));
        let heard = |what: &Subscribed| Heard { what: what.clone(), deliveries: Arc::default() };
        let subscriptions: Vec<Heard> = service.subscriptions.iter().map(heard).collect();
        let topics = service.topics().map(str::to_owned).collect();
        let unheard = Unheard(Arc::new(std::sync::Mutex::new(topics)));
        let workers = if subscriptions.is_empty() { 0 } else { parts.workers.max(1) };
        let shared = Arc::new(Shared {
            broker,
            settings,
            parts,
            subscriptions,
            shutdown: shutdown.clone(),
            unheard: unheard.clone(),
            limit: limit.clone(),
        });
        for heard in &shared.subscriptions {
            open(&shared, heard);
        }
        let mut threads = Vec::new();
        for number in 0..workers {
            let shared = shared.clone();
            let work = move || actix_web::rt::System::new().block_on(work(shared));
            let thread = std::thread::Builder::new().name(format!("goms-heard-{number}")).spawn(work);
            threads.push(thread.map_err(|source| ServeError { service: name.clone(), source })?);
        }
        Ok(Self { service: name, threads, shutdown, limit, unheard })
    }

    /// The topics that were not heard yet.
    #[must_use]
    pub fn unheard(&self) -> Unheard {
        self.unheard.clone()
    }

    /// Takes no more messages and waits until the handlers are done, `limit` at most. Returns whether all were; the
    /// others' messages come again.
    pub async fn stop(self, limit: Duration) -> bool {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
        self.shutdown.begin();
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
        match timeout(limit + Duration::from_secs(2), joined).await {
            Ok(Ok(all)) => all,
            Ok(Err(_)) | Err(_) => {
                log::warn!("[{}] handlers of topics did not end", self.service);
                false
            }
        }
    }
}

/// Subscribes, on this runtime: the worker threads' own may end before the last acknowledgement is sent.
fn open(shared: &Arc<Shared>, heard: &Heard) {
    let Ok(mut slot) = heard.deliveries.clone().try_lock_owned() else { return }; // nobody else knows it yet
    let (broker, shutdown, what) = (shared.broker.clone(), shared.shutdown.clone(), heard.what.clone());
    let (service, unheard) = (shared.parts.origin.service_name.clone(), shared.unheard.clone());
    shared.shutdown.spawn(async move {
        let Subscribed { topic, group, .. } = what;
        loop {
            let wanted = Subscription { topic: topic.clone(), group: group.clone() };
            let opened = tokio::select! {
                () = shutdown.begun() => return,
                opened = broker.subscribe(wanted) => opened,
            };
            match opened {
                Ok(deliveries) => {
                    log::info!("[{service}] hears topic {topic}");
                    unheard.is_heard(&topic);
                    *slot = Some(deliveries);
                    return;
                }
                Err(error) => log::error!("cannot subscribe, trying again topic={topic} error=\"{}\"", chain(&error)),
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = sleep(SUBSCRIBE_AGAIN) => {}
            }
        }
    });
}

/// One thread: every subscription, beside each other.
async fn work(shared: Arc<Shared>) {
    let parts = &shared.parts;
    let observer = Observer::new(parts.recorder.clone(), parts.origin.clone(), parts.access_log, &parts.metrics);
    let calls = parts
        .calls
        .as_ref()
        .map(|table| Rc::new(Calls::new(table.clone(), &parts.origin.service_name, &parts.call_keys, &parts.metrics)));
    let worker = Worker { shared: &shared, observer: Rc::new(observer), calls, load: parts.load.clone() };
    futures_util::future::join_all(shared.subscriptions.iter().map(|heard| worker.hear(heard))).await;
}

struct Worker<'a> {
    shared: &'a Shared,
    observer: Rc<Observer>,
    calls: Option<Rc<Calls>>,
    load: Load,
}

impl Worker<'_> {
    /// Takes messages of one subscription until the end, and finishes those that it has.
    async fn hear(&self, heard: &Heard) {
        let shutdown = &self.shared.shutdown;
        let mut running = FuturesUnordered::new();
        while !shutdown.has_begun() {
            tokio::select! {
                () = shutdown.begun() => break,
                next = self.next(heard), if running.len() < AT_ONCE => match next {
                    Some(delivery) => running.push(self.carry(&heard.what, delivery)),
                    None => break,
                },
                Some(()) = running.next() => {}
            }
        }
        let limit = *self.shared.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let finish = async {
            // no more from the broker; what it gave and will not take back is handled
            loop {
                let next = async {
                    let mut deliveries = heard.deliveries.lock().await;
                    let deliveries = deliveries.as_mut()?;
                    deliveries.stop();
                    deliveries.next().await
                };
                tokio::select! {
                    next = next, if running.len() < AT_ONCE => match next {
                        Some(delivery) => running.push(self.carry(&heard.what, delivery)),
                        None => break,
                    },
                    Some(()) = running.next() => {}
                }
            }
            while running.next().await.is_some() {}
        };
        if timeout(limit, finish).await.is_err() {
            log::warn!("messages are left unhandled at the end, they come again topic={}", heard.what.topic);
        }
    }

    /// The next message; `None` where the end came before the subscription.
    async fn next(&self, heard: &Heard) -> Option<Delivery> {
        heard.deliveries.lock().await.as_mut()?.next().await
    }

    /// One message, from its arrival to its end.
    async fn carry(&self, what: &Subscribed, delivery: Delivery) {
        let done = async {
            let outcome = self.try_all(what, &delivery).await;
            let message = &delivery.message;
            if let Err(reason) = outcome {
                let id = message.header("x-request-id").unwrap_or_default();
                log::error!("message is buried topic={} requestId={id} reason=\"{reason}\"", message.topic);
                if let Err(error) = self.shared.broker.bury(message, &reason).await {
                    sleep(BURY_AGAIN).await;
                    delivery.give_back().await;
                    return Err(error);
                }
            }
            delivery.ack().await
        };
        tokio::pin!(done);
        let mut working = interval_at(tokio::time::Instant::now() + Delivery::WORKING, Delivery::WORKING);
        let done: Result<(), BrokerError> = loop {
            tokio::select! {
                done = &mut done => break done,
                _ = working.tick() => delivery.working().await,
            }
        };
        if let Err(error) = done {
            log::warn!("message comes again topic={} error=\"{}\"", delivery.message.topic, chain(&error));
        }
    }

    /// Gives a message to its handler until it is handled, or in vain: `Err` says why.
    async fn try_all(&self, what: &Subscribed, delivery: &Delivery) -> Result<(), String> {
        let settings = &self.shared.settings;
        let mut backoff = Backoff::seeded(settings.backoff, LONGEST_BACKOFF);
        for attempt in 1.. {
            let Err(error) = self.try_once(&*what.handler, delivery).await else { return Ok(()) };
            if error.status() < 500 || attempt >= settings.attempts {
                return Err(format!("{} after {attempt} tries: {}", error.status(), error.message()));
            }
            let wait = backoff.next_wait();
            log::warn!(
                "handler failed, trying again in {wait:.1?} topic={} try={attempt} error=\"{}\"",
                what.topic,
                error.message()
            );
            sleep(wait).await;
        }
        Ok(())
    }

    async fn try_once(&self, handler: &dyn Handler, delivery: &Delivery) -> Result<(), ServiceError> {
        let message = &delivery.message;
        let field = |name: &str| message.header(name).map(str::as_bytes);
        let mut trace = TraceContext::from_headers(field("x-request-id"), field("traceparent"));
        let mut observed = Observed::begin(&self.observer, self.load.enter(), &mut trace, METHOD, &message.topic);
        let is_json = serde_json::from_slice::<IgnoredAny>(&message.body).is_ok();
        if observed.is_traced() {
            let headers = message.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            let body = match (is_json, message.body.len()) {
                (true, _) => TraceBody::Json(message.body.clone()),
                (false, bytes) => TraceBody::Opaque(bytes as u64),
            };
            let mut info = self.observer.recorder().request_info(METHOD, &message.topic, "", "", headers, body);
            info.caller = tracestate::caller(field("tracestate").into_iter()).map(Box::from);
            observed.record_start(info);
        }
        let context = Context::of_message(Rc::new(message.clone()), trace, self.calls.clone());
        let running = async {
            if !is_json {
                return Err(ServiceError::new(400, "the message is no JSON"));
            }
            handler.call(context, &message.body).await
        };
        let outcome = AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|panic| {
            let (reason, id) = (panic_text(&*panic), trace.request_id);
            log::error!("a handler panicked topic={} requestId={id} reason={reason}", message.topic);
            Err(ServiceError::new(500, "the handler failed; its log has the reason"))
        });
        observed.end(outcome.as_ref().map_or_else(ServiceError::status, |_| 200));
        outcome.map(drop)
    }
}
