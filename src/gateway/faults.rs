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

use super::client::client_ip;
use super::journal::Journal;
use super::keeper::{Finish, Keeper, Passage};
use super::respond::Failure;
use super::rule::FieldCondition;
use crate::balance::Turns;
use crate::listener::Incoming;
use crate::metrics::Metrics;
use crate::units::format_duration;

/// What an answer and a trace event say of a fault that was made on purpose.
pub(super) const GOMS_FAULT: HeaderName = HeaderName::from_static("x-goms-fault");

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
    fn told(&self) -> String {
        let delay = self.delay.map(|delay| format!("delay={}", format_duration(delay)));
        let abort = self.abort.map(|status| format!("abort={status}"));
        delay.into_iter().chain(abort).collect::<Vec<_>>().join(", ")
    }
}

/// `delay=500ms, abort=503 for 10% of requests with x-fault: slow`.
impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} for {}% of ", self.told(), f64::from(self.permille) / 10.0)?;
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

/// The faults of a route at work; shared by all workers.
pub(super) struct Injector {
    faults: Faults,
    turns: Turns,
    told: Arc<str>,
    delayed: IntCounter,
    aborted: IntCounter,
}

impl Injector {
    /// `labels` are the service and the action in metrics.
    pub fn new(faults: &Faults, labels: [&str; 2], metrics: &Metrics) -> Self {
        let made = metrics.counter(
            "faults_injected_total",
            "faults that `faults` of a route made on purpose",
            &["service", "action", "fault"],
        );
        let counter = |fault: &str| made.with_label_values(&[labels[0], labels[1], fault]);
        let (delayed, aborted) = (counter("delay"), counter("abort"));
        Self { faults: faults.clone(), turns: Turns::default(), told: faults.told().into(), delayed, aborted }
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
        self.delayed.inc_by(delay.is_some().into());
        self.aborted.inc_by(abort.is_some().into());
        let abort = abort.and_then(|status| StatusCode::from_u16(status).ok());
        Some(Strike { told: self.told.clone(), delay: *delay, abort })
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
    delay: Option<Duration>,
    abort: Option<StatusCode>,
}

impl Strike {
    /// Waits, and answers in place of a service.
    ///
    /// # Errors
    /// [`Failure::Injected`] where the route says `abort`.
    pub async fn land(&self) -> Result<(), Failure> {
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay).await;
        }
        self.abort.map_or(Ok(()), |status| Err(Failure::Injected(status)))
    }
}

/// Lets a request in, and makes the faults that are meant for it.
///
/// # Errors
/// Those of [`Keeper::admit`] and [`Strike::land`].
pub(super) async fn let_in<'r>(
    keeper: &'r Keeper,
    request: &'r Incoming,
    finish: &mut Finish<'_>,
    journal: &mut Journal,
) -> Result<Passage<'r>, Failure> {
    let passage = keeper.admit(request, client_ip(request), finish).await?;
    if let Some(strike) = keeper.strike(request.headers()) {
        finish.field(GOMS_FAULT, &strike.told);
        journal.struck(&strike);
        strike.land().await?;
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
        let injector = Injector::new(&faults(EVERY_PERMILLE), ["user", "login"], &Metrics::new());
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
        let injector = Injector::new(&faults(300), ["user", "login"], &Metrics::new());
        let meant = brought(&[("x-fault", "slow"), ("x-team", "a")]);
        assert_eq!((0..1000).filter(|_| injector.strike(&meant).is_some()).count(), 300);
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
