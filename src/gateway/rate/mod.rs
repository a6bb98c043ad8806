//! How often: limits on the rate of requests, of a route, a caller or an address.
//!
//! The algorithm is GCRA, a leaky bucket (crate `governor`): `burst` requests at once, and one more each `per / count`.
//! Where its state stands is in `budgets`, since memory must have a bound. The header fields are those of
//! draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy: "route";q=100;w=1` (at most 100 within a second) and
//! `RateLimit: "route";r=42;t=1` (42 left, all back in a second).

mod budgets;

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};
use prometheus::IntCounter;

use budgets::Budgets;

/// So many requests in so long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateLimit {
    /// How many, at least 1.
    pub count: u32,
    /// In how long, at least a nanosecond for each.
    pub per: Duration,
    /// How many at once, at least 1.
    pub burst: u32,
    /// Who has a budget of its own.
    pub by: By,
    /// Routes with the same name count together, others each on its own.
    pub name: Option<String>,
}

/// Who has a budget of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The route: all requests share one.
    #[default]
    Route,
    /// Each caller who has proved who it is.
    Caller,
    /// Each address; of IPv6 each /64, since a client has one to itself.
    Ip,
}

/// Who uses up a budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Everybody,
    Caller(String),
    Address(IpAddr),
}

impl Subject {
    /// Who an address stands for.
    pub fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            address => address,
        })
    }
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// How many may come now.
    pub requests: u32,
    /// Until all of it is back, rounded up.
    pub full_in_secs: u64,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedUp {
    /// Until the next may come, rounded up.
    pub retry_after_secs: u64,
}

/// A limit in force, with everybody's budget.
pub(super) struct Limiter<C: Clock = MonotonicClock> {
    limit: RateLimit,
    gcra: RateLimiter<Subject, Budgets, C, StateInformationMiddleware>,
}

impl<C: Clock> Limiter<C> {
    fn new(limit: RateLimit, clock: C) -> Self {
        let each = limit.each();
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN)); // never: it is not 0
        let gcra = RateLimiter::new(quota.allow_burst(burst), Budgets::new(each), clock);
        Self { limit, gcra }
    }

    /// Takes one request from the subject's budget.
    ///
    /// # Errors
    /// [`UsedUp`].
    pub fn take(&self, subject: &Subject) -> Result<Left, UsedUp> {
        match self.gcra.check_key(subject) {
            Ok(state) => {
                let requests = state.remaining_burst_capacity();
                let gone = self.limit.burst.saturating_sub(requests);
                Ok(Left { requests, full_in_secs: whole_secs(self.limit.each().saturating_mul(gone)) })
            }
            Err(until) => {
                let wait = until.wait_time_from(self.gcra.clock().now());
                Err(UsedUp { retry_after_secs: whole_secs(wait).max(1) })
            }
        }
    }
}

fn whole_secs(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl RateLimit {
    /// How long it takes for one request to be had again.
    fn each(&self) -> Duration {
        (self.per / self.count.max(1)).max(Duration::from_nanos(1))
    }

    /// Within how many seconds the whole burst can be had again.
    fn window_secs(&self) -> u64 {
        whole_secs(self.each().saturating_mul(self.burst)).max(1)
    }

    /// What headers and metrics call it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.by {
            By::Route => "route",
            By::Caller => "caller",
            By::Ip => "ip",
        }
    }
}

impl fmt::Display for RateLimit {
    /// `100/s by ip`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{:?} by {}", self.count, self.per, self.word())?;
        if self.burst != self.count {
            write!(out, ", {} at once", self.burst)?;
        }
        match &self.name {
            Some(name) => write!(out, " ({name})"),
            None => Ok(()),
        }
    }
}

/// Whose budgets a limiter has: the name, and what limits them.
type Whose = (String, RateLimit);

/// The limiters in force. A table of routes that takes another's place finds those of limits that did not change, with what
/// is left of their budgets.
#[derive(Clone, Default)]
pub(super) struct Limiters {
    known: Arc<Mutex<BTreeMap<Whose, Weak<Limiter>>>>,
}

impl Limiters {
    fn get(&self, route: &str, limit: &RateLimit) -> Arc<Limiter> {
        let whose = match &limit.name {
            Some(name) => (format!("name {name}"), limit.clone()),
            None => (format!("route {route}"), limit.clone()),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, limiter| limiter.strong_count() > 0);
        if let Some(limiter) = known.get(&whose).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::new(limit.clone(), MonotonicClock));
        known.insert(whose, Arc::downgrade(&limiter));
        limiter
    }
}

/// The limits of a route.
pub(super) struct Rates {
    limits: Vec<Counted>,
    /// `RateLimit-Policy`.
    policy: String,
}

struct Counted {
    limiter: Arc<Limiter>,
    /// What the headers call it.
    name: String,
    refused: IntCounter,
}

/// What is told a client of its budgets: the value of `RateLimit`.
#[derive(Default)]
pub(super) struct Told(pub String);

impl Rates {
    /// `None`: there are no limits. `refused` counts what a limit of this kind refused.
    pub fn new(
        limits: &[RateLimit],
        route: &str,
        limiters: &Limiters,
        refused: impl Fn(&str) -> IntCounter,
    ) -> Option<Self> {
        if limits.is_empty() {
            return None;
        }
        let mut counted: Vec<Counted> = Vec::new();
        let mut policy = String::new();
        for limit in limits {
            let base = limit.name.as_deref().unwrap_or(limit.word());
            let before = counted.iter().filter(|other| other.name.starts_with(base)).count();
            let name = if before == 0 { base.to_owned() } else { format!("{base}-{}", before + 1) };
            let comma = if policy.is_empty() { "" } else { ", " };
            // writing into a String cannot fail
            write!(policy, "{comma}\"{name}\";q={};w={}", limit.burst, limit.window_secs()).unwrap_or_default();
            counted.push(Counted { limiter: limiters.get(route, limit), name, refused: refused(limit.word()) });
        }
        Some(Self { limits: counted, policy })
    }

    /// The value of `RateLimit-Policy`.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Takes one request from each budget of this kind, and adds to what is told.
    ///
    /// # Errors
    /// The limit that refuses, and when to try again.
    pub fn take(&self, by: By, subject: &Subject, told: &mut Told) -> Result<(), (&RateLimit, UsedUp)> {
        for counted in self.limits.iter().filter(|counted| counted.limiter.limit.by == by) {
            let limit = &counted.limiter.limit;
            let taken = counted.limiter.take(subject);
            let left = match taken {
                Ok(left) => left,
                Err(_) => Left { requests: 0, full_in_secs: limit.window_secs() },
            };
            let comma = if told.0.is_empty() { "" } else { ", " };
            let (name, requests, secs) = (&counted.name, left.requests, left.full_in_secs);
            write!(told.0, "{comma}\"{name}\";r={requests};t={secs}").unwrap_or_default();
            if let Err(used_up) = taken {
                counted.refused.inc();
                return Err((limit, used_up));
            }
        }
        Ok(())
    }

    /// Whether there is a limit of this kind.
    pub fn has(&self, by: By) -> bool {
        self.limits.iter().any(|counted| counted.limiter.limit.by == by)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limiter(count: u32, per: u64, burst: u32) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit { count, per: Duration::from_secs(per), burst, by: By::Ip, name: None };
        (Limiter::new(limit, clock.clone()), clock)
    }

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let (limiter, clock) = limiter(10, 1, 3);
        let ann = Subject::Caller("ann".into());
        let left = |requests| Ok(Left { requests, full_in_secs: 1 });
        assert_eq!([limiter.take(&ann), limiter.take(&ann), limiter.take(&ann)], [left(2), left(1), left(0)]);
        assert_eq!(limiter.take(&ann), Err(UsedUp { retry_after_secs: 1 }));
        assert_eq!(limiter.take(&Subject::Everybody), left(2), "each has a budget of its own");
        clock.advance(Duration::from_millis(99));
        assert_eq!(limiter.take(&ann), Err(UsedUp { retry_after_secs: 1 }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limiter.take(&ann), left(0), "what is refused costs nothing");
        clock.advance(Duration::from_secs(60));
        assert_eq!(limiter.take(&ann), left(2), "no more than the burst is saved up");
    }

    #[test]
    fn waits_are_told_in_whole_seconds() {
        let (limiter, clock) = limiter(2, 60, 2);
        let take = || limiter.take(&Subject::Everybody);
        assert_eq!(take(), Ok(Left { requests: 1, full_in_secs: 30 }));
        assert_eq!(take(), Ok(Left { requests: 0, full_in_secs: 60 }));
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(take(), Err(UsedUp { retry_after_secs: 29 }));
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let subject = |address: &str| Subject::address(address.parse().expect("an address"));
        assert_eq!(subject("2001:db8::1"), subject("2001:db8::ffff:1"));
        assert_ne!(subject("2001:db8::1"), subject("2001:db8:0:1::1"));
        assert_eq!(subject("::ffff:10.0.0.1"), subject("10.0.0.1"));
        assert_ne!(subject("10.0.0.2"), subject("10.0.0.1"));
    }
}
