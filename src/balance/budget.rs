//! How many retries a service may get, so that retries do not multiply an outage.
//!
//! Each request earns a part of a retry; what is earned is kept up to a bound, so that a node that dies under load does not
//! use up at once what its requests need. The idea is that of Finagle's `RetryBudget` and of the AWS SDKs' retry quota.

/// What a retry costs, in hundredths.
const RETRY: u64 = 100;
/// Hundredths that a request earns: one retry for five requests.
const EARNED: u64 = 20;
/// Retries that may be saved: what may be in flight to a node that dies (a third of 3,000 requests a second that take half a
/// second each).
const MOST_SAVED: u64 = 500;

/// What a service has left.
#[derive(Debug)]
pub(super) struct Budget {
    /// In hundredths of a retry.
    saved: u64,
    /// Requests that earned already.
    seen: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: MOST_SAVED * RETRY, seen: 0 }
    }
}

impl Budget {
    /// Takes a retry out of it, if there is one. `requests` is how many the service got so far.
    pub fn take(&mut self, requests: u64) -> bool {
        let earned = requests.saturating_sub(self.seen).saturating_mul(EARNED);
        self.seen = requests;
        self.saved = self.saved.saturating_add(earned).min(MOST_SAVED * RETRY);
        match self.saved.checked_sub(RETRY) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_five_may_be_retried_once_the_savings_are_gone() {
        let mut budget = Budget::default();
        let saved = (0..).take_while(|_| budget.take(0)).count();
        assert_eq!(saved, 500);
        let retried = (1..=100).filter(|requests| budget.take(*requests)).count();
        assert_eq!(retried, 20);
        assert!(!budget.take(100));
    }

    #[test]
    fn what_is_saved_is_bounded() {
        let mut budget = Budget::default();
        assert!(budget.take(1_000_000_000));
        assert_eq!((0..).take_while(|_| budget.take(1_000_000_000)).count(), 499);
        assert!(!budget.take(0), "fewer requests than before earn nothing");
    }
}
