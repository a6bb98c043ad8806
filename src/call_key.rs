//! The key by which nodes of one cluster know each other, and when each was last brought by a caller.
//!
//! May import: nothing.
//!
//! Several may be valid while one takes the place of another: the first signs, all are accepted. The old one can go once no
//! node has seen it for a while, which is what [`CallKeys::uses`] tells.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Enough to tell keys apart; too little to find one by, if it is not a word.
const FINGERPRINT_BYTES: usize = 6;
/// How exactly a use is kept: threads that write the same place all the time slow each other down.
const EXACT_MS: i64 = 1000;

/// The call keys of a process; none: no guard. Clones share what they know of uses, and all follow when others are put in force:
/// a look at them costs no lock. `Debug` shows no key.
#[derive(Clone, Default)]
pub struct CallKeys {
    first: Arc<Set>,
}

/// Keys that are in force, or were. Those that took their place hang behind them; there are as many as config files with other keys.
#[derive(Default)]
struct Set {
    keys: Vec<String>,
    /// Milliseconds of Unix time; 0: never.
    used: Vec<AtomicI64>,
    next: OnceLock<Arc<Set>>,
}

impl Set {
    /// An empty key is none.
    fn new(keys: Vec<String>) -> Self {
        let keys: Vec<String> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        let used = keys.iter().map(|_| AtomicI64::new(0)).collect();
        Self { keys, used, next: OnceLock::new() }
    }
}

impl fmt::Debug for CallKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallKeys").field("count", &self.len()).finish_non_exhaustive()
    }
}

/// What a process signs its own calls with; clones follow when a reload of the config names another. `Debug` shows no key.
#[derive(Clone, Default)]
pub struct SigningKey {
    key: Arc<RwLock<Option<Arc<str>>>>,
}

impl SigningKey {
    /// This key, or none.
    #[must_use]
    pub fn new(key: Option<&String>) -> Self {
        let signing = Self::default();
        signing.set(key);
        signing
    }

    /// Signs with this one from now on.
    pub fn set(&self, key: Option<&String>) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key.map(|key| key.as_str().into());
    }

    /// The key; `None`: calls are not signed.
    #[must_use]
    pub fn get(&self) -> Option<Arc<str>> {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// When a key was last brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The first hexadecimal digits of its SHA-256.
    pub fingerprint: String,
    /// In milliseconds of Unix time, to the second; `None`: not since the start.
    pub last_ms: Option<i64>,
}

/// What shows in place of a key.
#[must_use]
pub fn fingerprint(key: &str) -> String {
    Sha256::digest(key.as_bytes())[..FINGERPRINT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl CallKeys {
    /// Puts these in force in place of the others, for all clones. What is known of the use of one that stays is kept.
    pub fn replace(&self, keys: Vec<String>) {
        let new = Set::new(keys);
        let mut set = self.set();
        if set.keys == new.keys {
            return;
        }
        for (key, used) in new.keys.iter().zip(&new.used) {
            if let Some(place) = set.keys.iter().position(|known| known == key) {
                used.store(set.used[place].load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        let new = Arc::new(new);
        // whoever was faster goes before
        while set.next.set(new.clone()).is_err() {
            set = self.set();
        }
    }

    /// Those in force.
    fn set(&self) -> &Set {
        let mut set = &*self.first;
        while let Some(next) = set.next.get() {
            set = next;
        }
        set
    }

    /// Whether this is one of the keys, and if so notes its use. Every key is compared whole, whatever matched before.
    #[must_use]
    pub fn knows(&self, brought: &[u8]) -> bool {
        let mut found = Choice::from(0);
        let set = self.set();
        for (key, used) in set.keys.iter().zip(&set.used) {
            let is_it = key.as_bytes().ct_eq(brought);
            found |= is_it;
            if is_it.into() {
                note(used, now_ms());
            }
        }
        found.into()
    }

    /// When each was last brought, in their order.
    #[must_use]
    pub fn uses(&self) -> Vec<KeyUse> {
        let last_ms = |used: &AtomicI64| Some(used.load(Ordering::Relaxed)).filter(|ms| *ms > 0);
        let set = self.set();
        let keys = set.keys.iter().zip(&set.used);
        keys.map(|(key, used)| KeyUse { fingerprint: fingerprint(key), last_ms: last_ms(used) }).collect()
    }
}

fn note(used: &AtomicI64, now_ms: i64) {
    if (now_ms - used.load(Ordering::Relaxed)).abs() >= EXACT_MS {
        used.store(now_ms, Ordering::Relaxed);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl From<Vec<String>> for CallKeys {
    /// An empty key is none.
    fn from(keys: Vec<String>) -> Self {
        Self { first: Arc::new(Set::new(keys)) }
    }
}

impl Deref for CallKeys {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.set().keys
    }
}

/// The same keys, whatever is known of their uses.
impl PartialEq for CallKeys {
    fn eq(&self, other: &Self) -> bool {
        self.set().keys == other.set().keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_noted_of_the_key_that_was_brought() {
        let keys = CallKeys::from(vec!["new".to_owned(), "old".to_owned()]);
        let same = keys.clone();
        assert!(!keys.knows(b"ol") && !keys.knows(b"") && !keys.knows(b"older"));
        assert!(keys.uses().iter().all(|used| used.last_ms.is_none()));
        let before = now_ms();
        assert!(keys.knows(b"old"));
        let uses = same.uses();
        assert_eq!((uses[0].last_ms, uses[0].fingerprint.as_str()), (None, "11507a0e2f5e"));
        assert!(uses[1].last_ms.is_some_and(|ms| ms >= before), "{uses:?}");
        assert!(!CallKeys::default().knows(b""));
    }

    #[test]
    fn others_take_their_place_in_all_clones() {
        let keys = CallKeys::from(vec!["old".to_owned()]);
        let guard = keys.clone();
        assert!(guard.knows(b"old"));
        let used = keys.uses()[0].last_ms;
        for (now, first) in [(vec!["new", "old"], "new"), (vec!["new", "old"], "new"), (vec!["newer", "new"], "newer")]
        {
            keys.replace(now.into_iter().map(str::to_owned).collect());
            assert_eq!((guard.first().map(String::as_str), guard.len()), (Some(first), 2));
            if first == "new" {
                assert_eq!(guard.uses()[1].last_ms, used, "its use is not forgotten");
            }
        }
        assert!(!guard.knows(b"old") && guard.knows(b"new") && guard.knows(b"newer"));
        guard.replace(Vec::new());
        assert!(keys.is_empty() && keys == CallKeys::default());
        assert!(!format!("{:?}", CallKeys::from(vec!["secret".to_owned()])).contains("secret"));
    }

    #[test]
    fn a_use_is_kept_to_the_second() {
        let used = AtomicI64::new(0);
        for (now_ms, kept_ms) in [(5_000, 5_000), (5_999, 5_000), (6_000, 6_000), (1_000, 1_000)] {
            note(&used, now_ms);
            assert_eq!(used.load(Ordering::Relaxed), kept_ms);
        }
    }
}
