//! Name and password (RFC 7617).
//!
//! A password's hash costs tens of milliseconds on purpose. It is made on a thread of its own, few at a time, and what was
//! right stays right for a minute: remembered as an HMAC under a key that only this process has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::{Basic, Caller};

/// How long a verified password is not hashed again.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Hashes at once: each may take a core and, with argon2, tens of megabytes.
const AT_ONCE: usize = 2;
/// Requests that wait for their turn; at 50 ms and two at once the last waits 1.6 s.
const WAITING: usize = 64;
/// bcrypt reads no further; and nobody types more.
const LONGEST_PASSWORD: usize = 1024;

/// Why a password is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The client's fault, and what it is.
    Wrong(&'static str),
    /// So many passwords are being checked that this one must wait.
    Busy,
}

/// Checks passwords.
pub struct Passwords {
    settings: Basic,
    turns: Arc<Semaphore>,
    waiting: Semaphore,
    secret: hmac::Key,
    /// What was right, until when; at most one a user.
    right: Mutex<HashMap<String, (hmac::Tag, Instant)>>,
}

impl Passwords {
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(settings: Basic) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            settings,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(WAITING),
            secret: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            right: Mutex::new(HashMap::new()),
        })
    }

    /// Who it is, from what stands behind `Basic `.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) async fn check(&self, credentials: &[u8]) -> Result<Caller, Refused> {
        const UNREADABLE: Refused = Refused::Wrong("the credentials are no Base64 of `user:password`");
        let bytes = STANDARD.decode(credentials.trim_ascii()).map_err(|_| UNREADABLE)?;
        let text = String::from_utf8(bytes).map_err(|_| UNREADABLE)?;
        let (user, password) = text.split_once(':').ok_or(UNREADABLE)?;
        if password.len() > LONGEST_PASSWORD {
            return Err(Refused::Wrong("the user or the password is wrong"));
        }
        if self.is_remembered(user, &text, Instant::now()) {
            return Ok(Caller::named(user));
        }
        let _place = self.waiting.try_acquire().map_err(|_| Refused::Busy)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
        // of an unknown user some hash is made too, or the time would tell that it is unknown
        let known = self.settings.users.get(user);
        let hash = known.or_else(|| self.settings.users.values().next()).cloned().unwrap_or_default();
        let is_known = known.is_some();
        let password = password.to_owned();
        let is_right = actix_web::web::block(move || {
            let _turn = turn; // also where nobody waits any more
            verify(&password, &hash)
        });
        if is_right.await.unwrap_or(false) && is_known {
            self.remember(user, &text);
            return Ok(Caller::named(user));
        }
        Err(Refused::Wrong("the user or the password is wrong"))
    }

    /// The name of who brings these credentials: what stands behind `Basic `.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn user(&self, credentials: &[u8]) -> Result<String, Refused> {
        self.check(credentials).await.map(|caller| caller.name)
    }

    fn is_remembered(&self, user: &str, credentials: &str, now: Instant) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((tag, until)) = right.get(user) else { return false };
        *until > now && hmac::verify(&self.secret, credentials.as_bytes(), tag.as_ref()).is_ok()
    }

    fn remember(&self, user: &str, credentials: &str) {
        let tag = hmac::sign(&self.secret, credentials.as_bytes());
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.insert(user.to_owned(), (tag, Instant::now() + REMEMBERED));
    }
}

impl Basic {
    pub(super) fn challenge(&self) -> String {
        format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm)
    }
}

fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| hash.starts_with(kind))
}

/// See [`super::is_password_hash`].
pub(super) fn check_hash(text: &str) -> Result<(), String> {
    let advice = "write what `htpasswd -nB NAME` or `argon2` prints, beginning with `$2y$` or `$argon2id$`";
    let is_good = if is_bcrypt(text) {
        // 53 letters of salt and hash behind `$2y$10$`
        text.len() == 60 && text.parse::<bcrypt::HashParts>().is_ok()
    } else {
        text.starts_with("$argon2") && PasswordHash::new(text).is_ok_and(|hash| hash.hash.is_some())
    };
    if is_good { Ok(()) } else { Err(format!("is no hash of a password; {advice}")) }
}

fn verify(password: &str, hash: &str) -> bool {
    if is_bcrypt(hash) {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    Argon2::default().verify_password(password.as_bytes(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use argon2::{Params, PasswordHasher};
    use futures_util::FutureExt;

    use super::*;

    fn passwords() -> Passwords {
        let users = BTreeMap::from([("ann".to_owned(), bcrypt::hash("secret", 4).expect("a hash"))]);
        Passwords::new(Basic { realm: "r".into(), users }).expect("random numbers")
    }

    #[test]
    fn what_was_right_is_remembered_for_a_minute_and_nothing_else() {
        let (passwords, now) = (passwords(), Instant::now());
        passwords.remember("ann", "ann:secret");
        assert!(passwords.is_remembered("ann", "ann:secret", now));
        assert!(!passwords.is_remembered("ann", "ann:secret", now + REMEMBERED + Duration::from_secs(1)));
        assert!(
            !passwords.is_remembered("ann", "ann:other", now) && !passwords.is_remembered("bob", "ann:secret", now)
        );
        // another password takes the place of the first
        passwords.remember("ann", "ann:other");
        assert!(!passwords.is_remembered("ann", "ann:secret", now) && passwords.is_remembered("ann", "ann:other", now));
    }

    #[test]
    fn who_comes_while_too_many_wait_is_told_at_once() {
        let passwords = passwords();
        let _waiting = passwords.waiting.try_acquire_many(WAITING as u32).expect("room");
        let asked = passwords.check(STANDARD.encode("ann:secret").as_bytes()).now_or_never();
        assert_eq!(asked.expect("at once").map(|caller| caller.name), Err(Refused::Busy));
        passwords.remember("ann", "ann:secret");
        let asked = passwords.check(STANDARD.encode("ann:secret").as_bytes()).now_or_never();
        assert_eq!(asked.expect("at once").map(|caller| caller.name), Ok("ann".to_owned()), "known without a hash");
    }

    #[test]
    fn hashes_of_both_kinds_are_known_and_checked() {
        let bcrypt = bcrypt::hash("secret", 4).expect("a hash");
        let least =
            Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::new(8, 1, 1, None).expect("good"));
        let argon2 = least.hash_password_with_salt(b"secret", b"salt and more").expect("a hash").to_string();
        for hash in [bcrypt, argon2] {
            assert_eq!(check_hash(&hash), Ok(()), "{hash}");
            assert!(verify("secret", &hash) && !verify("Secret", &hash), "{hash}");
        }
        for bad in ["secret", "", "$2y$10$short", "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ", "$5$salt$hash", "$apr1$x$y"]
        {
            assert!(check_hash(bad).is_err_and(|why| why.contains("htpasswd")), "{bad}");
            assert!(!verify("secret", bad), "{bad}");
        }
    }
}
