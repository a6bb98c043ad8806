//! Wrong tokens and passwords are counted, by address and in all, so that nobody tries them out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Refusal;

/// How long wrong attempts count.
const WINDOW: Duration = Duration::from_secs(60);
/// Of one address within it.
const MOST_OF_ONE: u32 = 10;
/// Of all: who has many addresses gets no further.
const MOST: u32 = 200;

#[derive(Default)]
pub(super) struct Attempts {
    wrong: Mutex<Wrong>,
}

#[derive(Default)]
struct Wrong {
    since: Option<Instant>,
    all: u32,
    /// At most [`MOST`], as each has one.
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Attempts {
    /// Whether whoever calls from there may say who they are.
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
        if wrong.all < MOST && wrong.by_address.get(&from).is_none_or(|count| *count < MOST_OF_ONE) {
            return Ok(());
        }
        Err(Refusal::Later((WINDOW - age).as_secs() + 1))
    }

    /// Counts one that was wrong.
    pub fn note(&self, from: Option<IpAddr>, refusal: Refusal) {
        if refusal != Refusal::Wrong {
            return;
        }
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.all += 1;
        let count = wrong.by_address.entry(from).or_default();
        *count += 1;
        if *count == MOST_OF_ONE {
            let from = from.map_or_else(|| "an unknown address".to_owned(), |from| from.to_string());
            log::warn!("too many wrong logins at the admin port, more are refused for up to {WINDOW:?} from={from}");
        }
    }
}
