//! Wrong passwords are counted by address, so that nobody tries them out. Tokens are not: they have letters enough.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Refusal;

/// How long wrong attempts count.
const WINDOW: Duration = Duration::from_secs(60);
/// Of one address within it.
const MOST_OF_ONE: u32 = 10;
/// Addresses that are counted each for itself within it, about half a megabyte; all others count as one.
const MOST_ADDRESSES: usize = 8_192;

#[derive(Default)]
pub(super) struct Attempts {
    wrong: Mutex<Wrong>,
}

#[derive(Default)]
struct Wrong {
    since: Option<Instant>,
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Wrong {
    /// The address that counts for this one; `None` for all that are not known.
    fn place(&self, from: Option<IpAddr>) -> Option<IpAddr> {
        let from = from.map(network);
        from.filter(|_| self.by_address.len() < MOST_ADDRESSES || self.by_address.contains_key(&from))
    }
}

/// Whose attempts count together: an address, or of IPv6 what one household or server gets at least (RFC 6177), as each can
/// call from any address in it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

impl Attempts {
    /// Whether a password of whoever calls from there is looked at.
    ///
    /// # Errors
    /// [`Refusal::Later`].
    pub fn may_try(&self, from: Option<IpAddr>) -> Result<(), Refusal> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = *wrong.since.get_or_insert(now);
        let age = now - since;
        if age >= WINDOW {
            *wrong = Wrong { since: Some(now), ..Wrong::default() };
            return Ok(());
        }
        if wrong.by_address.get(&wrong.place(from)).is_none_or(|count| *count < MOST_OF_ONE) {
            return Ok(());
        }
        Err(Refusal::Later((WINDOW - age).as_secs() + 1))
    }

    /// Counts one that was wrong.
    pub fn note(&self, from: Option<IpAddr>) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let from = wrong.place(from);
        let count = wrong.by_address.entry(from).or_default();
        *count += 1;
        if *count == MOST_OF_ONE {
            let from = from.map_or_else(|| "unknown addresses".to_owned(), |from| from.to_string());
            log::warn!("too many wrong logins at the admin port, more are refused for up to {WINDOW:?} from={from}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(attempts: &Attempts, from: &str) {
        for _ in 0..MOST_OF_ONE {
            attempts.note(Some(from.parse().expect("an address")));
        }
    }

    fn may(attempts: &Attempts, from: &str) -> bool {
        attempts.may_try(Some(from.parse().expect("an address"))).is_ok()
    }

    #[test]
    fn a_network_counts_as_one() {
        let attempts = Attempts::default();
        assert!(may(&attempts, "2001:db8::1"));
        guess(&attempts, "2001:db8::1");
        assert!(!may(&attempts, "2001:db8::ffff:2:3:4") && may(&attempts, "2001:db8:0:1::1"));
        guess(&attempts, "::ffff:10.0.0.1");
        assert!(!may(&attempts, "10.0.0.1") && may(&attempts, "10.0.0.2"));
    }

    #[test]
    fn many_addresses_take_no_more_memory() {
        let attempts = Attempts::default();
        assert!(may(&attempts, "10.0.0.1"));
        for number in 0..2 * MOST_ADDRESSES as u32 {
            attempts.note(Some(IpAddr::V4(number.into())));
        }
        assert_eq!(attempts.wrong.lock().expect("no panic").by_address.len(), MOST_ADDRESSES + 1);
        assert!(may(&attempts, "0.0.0.1"), "one that is known is counted for itself");
        assert!(!may(&attempts, "10.0.0.1"), "the others together");
    }
}
