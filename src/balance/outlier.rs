//! Outliers: nodes that fail again and again get no requests for a while.
//!
//! ```text
//! in ── failures in a row, or too many in a window ──▶ out ── its time passes ──▶ on trial ── a success ──▶ in
//!                                                       ▲                            │
//!                                                       └───────── a failure ────────┘
//! ```
//! A node on trial gets one request at a time. After the model of Envoy's outlier detection, which has no trial.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::clock::{Now, millis};
use super::settings::Ejection;

/// A rate over fewer tries than this says nothing; as Hystrix's `requestVolumeThreshold`.
const LEAST_TRIES: u32 = 20;
/// All of its share, in thousandths.
pub(super) const WARM: u32 = 1_000;
/// Who gets nothing never warms up; as Envoy's `min_weight_percent`.
const LEAST_WARMTH: u32 = 100;
/// So many times the first ejection is the longest; as Envoy's 30 s and 300 s.
const MOST_TIMES: u32 = 10;

/// How a node did of late. Successes touch only atomics.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures_in_a_row: AtomicU32,
    /// Until when it is out, on the balancer's clock; 0: it is in. Stays after that time, while the node is on trial.
    until_ms: AtomicU64,
    /// Somebody tries the node on trial.
    is_tried: AtomicBool,
    /// Successes of the window.
    successes: AtomicU32,
    history: Mutex<History>,
    /// Health checks say that it should get nothing.
    is_unwell: AtomicBool,
    /// Since when it is there, or back, on the balancer's clock; 0: from of old.
    since_ms: AtomicU64,
}

/// What only failures touch.
#[derive(Debug, Default)]
struct History {
    /// A window begins with a failure.
    window_began_ms: u64,
    window_failures: u32,
    /// How often it was ejected in close succession.
    times: u32,
    /// When an ejection is the first again: it was in as long as it had been out before.
    clean_ms: u64,
}

/// Why a node is to be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    InARow(u32),
    Rate { failures: u32, tries: u32 },
    Trial,
}

impl Health {
    /// Whether health checks say that it should get nothing.
    pub fn is_unwell(&self) -> bool {
        self.is_unwell.load(Ordering::Relaxed)
    }

    /// What health checks say.
    pub fn set_well(&self, is_well: bool) {
        self.is_unwell.store(!is_well, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InARow(failures) => write!(out, "{failures} failures in a row"),
            Self::Rate { failures, tries } => write!(out, "{failures} failures of {tries}"),
            Self::Trial => write!(out, "failed its trial"),
        }
    }
}

impl Health {
    /// That of a node which came now.
    pub fn joined(now_ms: u64) -> Self {
        Self { since_ms: AtomicU64::new(now_ms.max(1)), ..Self::default() }
    }

    /// How much of its share it can bear after coming, in thousandths: it grows in a straight line over `slow_start`.
    pub fn warmth(&self, slow_start: Duration, now: &Now<'_>) -> u32 {
        let since = self.since_ms.load(Ordering::Relaxed);
        if since == 0 {
            return WARM;
        }
        let grown = now.ms().saturating_sub(since).saturating_mul(WARM.into()) / millis(slow_start).max(1);
        u32::try_from(grown).unwrap_or(WARM).clamp(LEAST_WARMTH, WARM)
    }

    /// It was ejected and has not answered since its time passed.
    pub fn is_ejected(&self) -> bool {
        self.until_ms.load(Ordering::Relaxed) != 0
    }

    /// Its last try failed.
    pub fn is_failing(&self) -> bool {
        self.failures_in_a_row.load(Ordering::Relaxed) != 0
    }

    /// It gets no request now. Looks at the time only where the node is ejected.
    pub fn is_out(&self, now: &Now<'_>) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        until != 0 && (now.ms() < until || self.is_tried.load(Ordering::Relaxed))
    }

    /// How long it is still out; zero while on trial, `None` when it is in.
    pub fn out_for(&self, now_ms: u64) -> Option<Duration> {
        let until = self.until_ms.load(Ordering::Relaxed);
        (until != 0).then(|| Duration::from_millis(until.saturating_sub(now_ms)))
    }

    /// Somebody was given this node; whether that is its trial, which then ends with [`Health::end_trial`].
    pub fn begin_trial(&self, now: &Now<'_>) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        until != 0 && now.ms() >= until && !self.is_tried.swap(true, Ordering::Relaxed)
    }

    pub fn end_trial(&self) {
        self.is_tried.store(false, Ordering::Relaxed);
    }

    /// Notes a success; whether that put the node in again.
    pub fn succeeded(&self, settings: Option<&Ejection>, now_ms: impl Fn() -> u64) -> bool {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        if settings.is_some_and(|settings| settings.error_percent.is_some()) {
            self.successes.fetch_add(1, Ordering::Relaxed);
        }
        let until = self.until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        // an answer to what was sent before it went out says little
        let now_ms = now_ms();
        let is_back = now_ms >= until && self.until_ms.swap(0, Ordering::Relaxed) != 0;
        if is_back {
            self.since_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
        is_back
    }

    /// Notes a failure; why the node is to be ejected now, if so.
    pub fn failed(&self, settings: Option<&Ejection>, now_ms: u64) -> Option<Reason> {
        let in_a_row = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let settings = settings?;
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = self.rate(&mut history, settings, now_ms);
        match self.until_ms.load(Ordering::Relaxed) {
            0 if in_a_row >= settings.failures => Some(Reason::InARow(in_a_row)),
            0 => rate,
            until if now_ms >= until => Some(Reason::Trial),
            _ => None, // of what was sent before it went out
        }
    }

    fn rate(&self, history: &mut History, settings: &Ejection, now_ms: u64) -> Option<Reason> {
        let limit = settings.error_percent?;
        if history.window_failures == 0 || now_ms - history.window_began_ms.min(now_ms) >= millis(settings.window) {
            (history.window_began_ms, history.window_failures) = (now_ms, 0);
            self.successes.store(0, Ordering::Relaxed);
        }
        history.window_failures = history.window_failures.saturating_add(1);
        let failures = history.window_failures;
        let tries = failures.saturating_add(self.successes.load(Ordering::Relaxed));
        let too_many = u64::from(failures) * 100 >= u64::from(tries) * u64::from(limit);
        (tries >= LEAST_TRIES && too_many).then_some(Reason::Rate { failures, tries })
    }

    /// Ejects the node; for how long.
    pub fn eject(&self, settings: &Ejection, now_ms: u64) -> Duration {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.times = if now_ms >= history.clean_ms { 1 } else { (history.times + 1).min(MOST_TIMES) };
        history.window_failures = 0;
        let duration = settings.duration.saturating_mul(history.times);
        let until = now_ms.saturating_add(millis(duration)).max(1);
        history.clean_ms = until.saturating_add(millis(duration));
        self.until_ms.store(until, Ordering::Relaxed);
        duration
    }
}
