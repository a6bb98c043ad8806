//! Who is logged in: by what the cookie says, of which only a hash is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Stay;

/// A working day; then one says again who one is.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; the oldest goes.
const MOST: usize = 1_000;

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub is_read_only: bool,
    pub csrf: String,
    until: Instant,
    /// Ends with it: only the table has one that sends.
    open: watch::Receiver<()>,
}

impl Session {
    /// How long it lasts.
    pub fn stay(&self) -> Stay {
        Stay::until_closed(self.open.clone(), Some(self.until))
    }
}

/// A session that is open, and what tells its streams when it no longer is.
type Open = (Session, watch::Sender<()>);

/// All of them.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<[u8; 32], Open>>,
}

impl Sessions {
    /// A new one; gives its id.
    pub fn open(&self, is_read_only: bool) -> String {
        let id = random();
        let (sender, receiver) = watch::channel(());
        let session = Session { is_read_only, csrf: random(), until: Instant::now() + LIFETIME, open: receiver };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|_, (session, _)| session.until > now);
        if open.len() >= MOST
            && let Some(oldest) = open.iter().min_by_key(|(_, (session, _))| session.until).map(|(key, _)| *key)
        {
            open.remove(&oldest);
        }
        open.insert(key(&id), (session, sender));
        id
    }

    /// The one of this id, while it lasts.
    pub fn find(&self, id: &str) -> Option<Session> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&key(id)).map(|(session, _)| session).filter(|session| session.until > Instant::now()).cloned()
    }

    pub fn end(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(id));
    }

    pub fn clear(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn key(id: &str) -> [u8; 32] {
    Sha256::digest(id).into()
}

/// 256 random bits as hexadecimal digits.
pub(super) fn random() -> String {
    let mut bytes = [0_u8; 32];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // the system has none: two UUIDs come from another source of the same strength
        bytes[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        bytes[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    }
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_an_end_and_their_number_too() {
        let sessions = Sessions::default();
        let first = sessions.open(true);
        assert!(sessions.find(&first).is_some_and(|session| session.is_read_only));
        assert!(sessions.find("other").is_none() && first.len() == 64);
        let last = (0..MOST).map(|_| sessions.open(false)).last().expect("one");
        assert!(sessions.find(&first).is_none() && sessions.find(&last).is_some());
        sessions.end(&last);
        assert!(sessions.find(&last).is_none());
    }
}
