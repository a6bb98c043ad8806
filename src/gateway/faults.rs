//! Faults on purpose: a route answers late or with an error, for requests that ask for it by header fields, so that a team
//! sees what its clients and services make of it.
//!
//! ```text
//! let in by the route's keeper → meant? (header fields, share) → counted, marked (answer, trace event) → delay → abort, or on as usual
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName};
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::client_ip;
use super::journal::Journal;
use super::keeper::{Finish, Keeper, Passage};
use super::respond::Failure;
use super::rule::FieldCondition;
use crate::balance::Turns;
use crate::listener::Incoming;
use crate::metrics::Metrics;
use crate::rpc::timeout::End;
use crate::units::format_duration;
use crate::upstream::headers;

/// What an answer and a trace event say of a fault that was made on purpose.
pub(super) const GOMS_FAULT: HeaderName = HeaderName::from_static(headers::FAULT);

/// How many requests of a gateway wait in a delay at once: header fields are anybody's to send, and who waits holds memory and
/// counts as in flight. Whoever comes beyond it is not delayed.
const DELAYED_MOST: usize = 256;

/// All requests, as a share.
pub const EVERY_PERMILLE: u16 = 1000;

/// Which faults a route makes, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How long a request waits before it goes on.
    pub delay: Option<Duration>,
    /// The status (400 to 599) that it is answered with, with no service asked.
    pub abort: Option<u16>,
    /// Of how many in a thousand of the requests that are meant; 1 to [`EVERY_PERMILLE`].
    pub permille: u16,
    /// Which requests are meant: those with all of these header fields. Without any, everybody's.
    pub headers: Vec<FieldCondition>,
}

impl Faults {
    /// What a request that got them is told: `delay=500ms, abort=503`.
    fn told(&self, is_delayed: bool) -> String {
        let delay = self.delay.filter(|_| is_delayed).map(|delay| format!("delay={}", format_duration(delay)));
        let abort = self.abort.map(|status| format!("abort={status}"));
        delay.into_iter().chain(abort).collect::<Vec<_>>().join(", ")
    }
}

/// `delay=500ms, abort=503 for 10% of requests with x-fault: slow`.
impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} for {}% of ", self.told(true), f64::from(self.permille) / 10.0)?;
        if self.headers.is_empty() {
            return out.write_str("everyone's requests");
        }
        for (place, FieldCondition { name, value }) in self.headers.iter().enumerate() {
            let before = if place == 0 { "requests with" } else { " and" };
            write!(out, "{before} {name}: {}", value.as_deref().unwrap_or("*"))?;
        }
        Ok(())
    }
}

/// The places of those who wait in a delay, of all routes of a gateway.
#[derive(Clone)]
pub(super) struct Delays(Arc<Semaphore>);

impl Default for Delays {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(DELAYED_MOST)))
    }
}

/// The faults of a route at work; shared by all workers.
pub(super) struct Injector {
    faults: Faults,
    turns: Turns,
    delays: Delays,
    told: Arc<str>,
    /// Of a request for whose delay there is no place.
    told_at_once: Arc<str>,
    delayed: IntCounter,
    aborted: IntCounter,
}

impl Injector {
    /// `labels` are the service and the action in metrics.
    pub fn new(faults: &Faults, labels: [&str; 2], delays: &Delays, metrics: &Metrics) -> Self {
        let made = metrics.counter(
            "faults_injected_total",
            "faults that `faults` of a route made on purpose",
            &["service", "action", "fault"],
        );
        let counter = |fault: &str| made.with_label_values(&[labels[0], labels[1], fault]);
        let (delayed, aborted) = (counter("delay"), counter("abort"));
        let told = |is_delayed: bool| faults.told(is_delayed).into();
        let (told, told_at_once) = (told(true), told(false));
        let (faults, turns, delays) = (faults.clone(), Turns::default(), delays.clone());
        Self { faults, turns, delays, told, told_at_once, delayed, aborted }
    }

    /// What this request gets; counted. The share is exact: of 10%, one in ten.
    pub fn strike(&self, brought: &HeaderMap) -> Option<Strike> {
        let Faults { delay, abort, permille, headers } = &self.faults;
        if !headers.iter().all(|field| has(brought, field)) {
            return None;
        }
        if *permille < EVERY_PERMILLE {
            let (share, rest) = (i64::from(*permille), i64::from(EVERY_PERMILLE - permille));
            let turn = self.turns.take_weighted(2, |place| Some(if place == 0 { share } else { rest }));
            if turn != Some(0) {
                return None;
            }
        }
        let delayed = delay.and_then(|delay| Some((delay, self.delays.0.clone().try_acquire_owned().ok()?)));
        if delayed.is_none() && abort.is_none() {
            return None;
        }
        self.delayed.inc_by(delayed.is_some().into());
        self.aborted.inc_by(abort.is_some().into());
        let abort = abort.and_then(|status| StatusCode::from_u16(status).ok());
        let told = if delayed.is_some() { &self.told } else { &self.told_at_once };
        Some(Strike { told: told.clone(), delayed, abort })
    }
}

fn has(brought: &HeaderMap, field: &FieldCondition) -> bool {
    let mut values = brought.get_all(field.name.as_str());
    values.any(|value| field.value.as_ref().is_none_or(|wanted| value.as_bytes() == wanted.as_bytes()))
}

/// What goes wrong with one request.
pub(super) struct Strike {
    /// What is said of it.
    pub told: Arc<str>,
    /// How long it waits, and its place there.
    delayed: Option<(Duration, OwnedSemaphorePermit)>,
    abort: Option<StatusCode>,
}

impl Strike {
    /// Waits, and answers in place of a service. A caller who waits until `end` only is not delayed for longer, and then gets
    /// its status of the deadline from who asks for it.
    ///
    /// # Errors
    /// [`Failure::Injected`] where the route says `abort`.
    pub async fn land(self, end: Option<End>) -> Result<(), Failure> {
        if let Some((delay, _place)) = self.delayed {
            let left = end.map_or(delay, End::left);
            tokio::time::sleep(delay.min(left)).await;
            if left < delay {
                return Ok(());
            }
        }
        self.abort.map_or(Ok(()), |status| Err(Failure::Injected(status)))
    }
}

/// Lets a request in, and makes the faults that are meant for it. Who says so waits until `end` only.
///
/// # Errors
/// Those of [`Keeper::admit`] and [`Strike::land`].
pub(super) async fn let_in<'r>(
    keeper: &'r Keeper,
    (request, end): (&'r Incoming, Option<End>),
    finish: &mut Finish<'_>,
    journal: &mut Journal,
) -> Result<Passage<'r>, Failure> {
    let passage = keeper.admit(request, client_ip(request), finish).await?;
    if let Some(strike) = keeper.strike(request.headers()) {
        finish.field(GOMS_FAULT, &strike.told);
        journal.struck(&strike);
        strike.land(end).await?;
    }
    Ok(passage)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn faults(permille: u16) -> Faults {
        let field =
            |name: &str, value: Option<&str>| FieldCondition { name: name.into(), value: value.map(Into::into) };
        let headers = vec![field("x-fault", Some("slow")), field("x-team", None)];
        Faults { delay: Some(Duration::from_millis(500)), abort: Some(503), permille, headers }
    }

    fn brought(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn only_who_brings_every_field_is_meant() {
        let injector = Injector::new(&faults(EVERY_PERMILLE), ["user", "login"], &Delays::default(), &Metrics::new());
        for (fields, is_meant) in [
            (&[("x-fault", "slow"), ("x-team", "a")][..], true),
            (&[("x-fault", "fast"), ("x-fault", "slow"), ("x-team", "")], true),
            (&[("x-fault", "slow")], false),
            (&[("x-fault", "Slow"), ("x-team", "a")], false),
            (&[("x-team", "a")], false),
            (&[], false),
        ] {
            assert_eq!(injector.strike(&brought(fields)).is_some(), is_meant, "{fields:?}");
        }
        assert_eq!((injector.delayed.get(), injector.aborted.get()), (2, 2));
    }

    #[test]
    fn a_share_is_exact() {
        let injector = Injector::new(&faults(300), ["user", "login"], &Delays::default(), &Metrics::new());
        let meant = brought(&[("x-fault", "slow"), ("x-team", "a")]);
        assert_eq!((0..1000).filter(|_| injector.strike(&meant).is_some()).count(), 300);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let (delays, metrics) = (Delays::default(), Metrics::new());
        let both = Injector::new(&faults(EVERY_PERMILLE), ["user", "login"], &delays, &metrics);
        let late = Faults { abort: None, ..faults(EVERY_PERMILLE) };
        let late = Injector::new(&late, ["user", "out"], &delays, &metrics);
        let meant = brought(&[("x-fault", "slow"), ("x-team", "a")]);
        let mut waiting: Vec<_> = (0..DELAYED_MOST).map(|_| late.strike(&meant).expect("a place")).collect();
        assert!(late.strike(&meant).is_none(), "it goes on as usual");
        assert_eq!(both.strike(&meant).map(|strike| strike.told.to_string()).as_deref(), Some("abort=503"));
        assert_eq!((late.delayed.get(), both.delayed.get(), both.aborted.get()), (DELAYED_MOST as u64, 0, 1));
        drop(waiting.pop());
        let told = both.strike(&meant).map(|strike| strike.told.to_string());
        assert_eq!(told.as_deref(), Some("delay=500ms, abort=503"));
    }

    #[test]
    fn they_are_told() {
        assert_eq!(
            faults(5).to_string(),
            "delay=500ms, abort=503 for 0.5% of requests with x-fault: slow and x-team: *"
        );
        let everyone = Faults { delay: None, headers: Vec::new(), ..faults(EVERY_PERMILLE) };
        assert_eq!(everyone.to_string(), "abort=503 for 100% of everyone's requests");
    }
}
