//! Which requests are recorded: a share of all by their trace id, and of the rest those that went wrong here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::context::TraceContext;

/// What becomes of one request's events at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is recorded at all.
    Off,
    /// They stay in hand until its end, and go on only if this node saw it fail or saw it slow.
    Held,
    /// They are recorded as they happen.
    Kept,
}

impl Decision {
    /// The trace, where it is surely kept, so that a metric may name it.
    #[must_use]
    pub fn kept(self, context: &TraceContext) -> Option<u128> {
        (self == Self::Kept).then_some(context.trace_id)
    }
}

/// `traces.sample` and `traces.slow`.
#[derive(Debug)]
pub(super) struct Sampling {
    /// The bits of a double.
    share: AtomicU64,
    slow: Duration,
}

impl Sampling {
    pub(super) fn new(share: f64, slow: Duration) -> Self {
        Self { share: AtomicU64::new(share.to_bits()), slow }
    }

    /// Another share, for requests that begin from now on.
    pub(super) fn set_share(&self, share: f64) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Follows from the trace id, so every node with the same share decides the same; where the caller's flag says that
    /// it does not record, this node holds too. Tells callees by the context's flag.
    pub(super) fn decide(&self, context: &mut TraceContext) -> Decision {
        // the low 53 bits as a fraction of 1: a double holds them exactly
        let fraction = (context.trace_id & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64;
        context.sampled = context.sampled && fraction < f64::from_bits(self.share.load(Ordering::Relaxed));
        if context.sampled { Decision::Kept } else { Decision::Held }
    }

    /// Whether the events of a held request are worth keeping, now that it has ended.
    pub(super) fn is_telling(&self, status: Option<u16>, duration: Option<Duration>) -> bool {
        status.is_some_and(|status| status >= 500) || duration.is_some_and(|duration| duration >= self.slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(share: f64, traceparent: &str) -> (Decision, String) {
        let mut context = TraceContext::from_headers(None, Some(traceparent.as_bytes()));
        let decision = Sampling::new(share, Duration::from_secs(1)).decide(&mut context);
        (decision, context.traceparent()[53..].to_owned())
    }

    #[test]
    fn the_trace_id_and_the_callers_flag_decide_and_callees_are_told() {
        let (kept, held) = ((Decision::Kept, "01".to_owned()), (Decision::Held, "00".to_owned()));
        // of the id count the low 53 bits: a quarter, three quarters, and all ones
        let quarter = "00-0af7651916cd43ddffe8000000000000-b7ad6b7169203331-01";
        let three_quarters = "00-0af7651916cd43dd0018000000000000-b7ad6b7169203331-01";
        let most = "00-ffffffffffffffffffffffffffffffff-b7ad6b7169203331-01";
        for (share, traceparent, expected) in [
            (0.25, quarter, &held),
            (0.26, quarter, &kept),
            (0.74, three_quarters, &held),
            (0.76, three_quarters, &kept),
            (0.999, most, &held),
            (1.0, most, &kept),
        ] {
            assert_eq!(&decide(share, traceparent), expected, "{share} {traceparent}");
        }
        assert_eq!(decide(1.0, &quarter.replace("-01", "-00")), held);
        let sampling = Sampling::new(0.0, Duration::from_secs(1));
        sampling.set_share(1.0);
        let mut context = TraceContext::from_headers(None, Some(quarter.as_bytes()));
        assert_eq!(sampling.decide(&mut context), Decision::Kept, "it follows");
    }

    #[test]
    fn failed_and_slow_ones_tell_something() {
        let sampling = Sampling::new(0.5, Duration::from_secs(1));
        for (status, millis, expected) in
            [(200, 999, false), (499, 0, false), (500, 0, true), (504, 0, true), (200, 1000, true), (404, 5000, true)]
        {
            let told = sampling.is_telling(Some(status), Some(Duration::from_millis(millis)));
            assert_eq!(told, expected, "{status} {millis}");
        }
    }
}
