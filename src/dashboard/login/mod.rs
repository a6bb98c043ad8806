//! Who may see the pages: by a token, or by name and password; once by a form, then by a cookie.
//!
//! ```text
//! Authorization: Bearer TOKEN      programs: `goms cluster …`, Prometheus's probes, curl
//! Authorization: Basic …           a user of the config, or any name with a token as its password
//! Cookie: goms-session-PORT=…      browsers, after the form at /login; 256 random bits, of which only a hash is kept here
//! ```
//! Without a login in the config, pages are for whoever reaches a loopback port under an address of that machine (another
//! name in `Host` is a DNS rebinding attack), and on any other port for nobody.

mod attempts;
mod form;
mod sessions;
mod stay;

pub(super) use form::{address as form_address, routes};
pub use stay::Stay;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HOST};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use self::attempts::Attempts;
use self::sessions::Sessions;
use crate::gateway::access::{Basic, Passwords, Refused};

/// Letters of a token at least: as many random ones cannot be tried out.
pub const SHORTEST_TOKEN: usize = 16;

/// Who may see the pages of an admin port. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Who brings it sees and changes.
    pub token: Option<String>,
    /// Who brings it sees.
    pub read_only_token: Option<String>,
    /// Names with what is known of each.
    pub users: BTreeMap<String, User>,
    /// Names under which the port is reached besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// Someone with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its hash, of a kind that `gateway::access::is_password_hash` knows.
    pub password: String,
    /// Sees, and changes nothing.
    pub is_read_only: bool,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&String> = self.users.keys().collect();
        f.debug_struct("Login").field("users", &users).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Login {
    /// Whether somebody must say who they are.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.token.is_some() || self.read_only_token.is_some() || !self.users.is_empty()
    }

    /// What a program that reads other nodes' admin ports brings: the token that can do least.
    #[must_use]
    pub fn reader_token(&self) -> Option<&str> {
        self.read_only_token.as_deref().or(self.token.as_deref())
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody may: the port is open to others, and the config says of no login.
    Closed,
    /// Under this name in `Host` nobody may.
    ForeignHost,
    /// They said nothing of themselves.
    Anonymous,
    /// What they said is wrong.
    Wrong,
    /// They were wrong too often, or too many passwords are being checked; so many seconds.
    Later(u64),
}

/// Somebody who is let in.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub is_read_only: bool,
    /// What a form of theirs must bring; `None`: nothing, as no browser of theirs sends what they brought by itself.
    pub csrf: Option<String>,
    /// They came in by the form, and may leave.
    pub has_session: bool,
    /// How long they are let in.
    pub stay: Stay,
}

/// Decides who is let in.
pub(super) struct Doorkeeper {
    rules: RwLock<Arc<Rules>>,
    sessions: Sessions,
    attempts: Attempts,
    /// Of forms without a session: of the login, and where no login is asked for.
    csrf: String,
}

struct Rules {
    login: Login,
    is_loopback: bool,
    passwords: Option<Passwords>,
    /// Ends with them.
    in_force: watch::Sender<()>,
}

impl Rules {
    fn new(login: Login, is_loopback: bool) -> Self {
        let users = login.users.iter().map(|(name, user)| (name.clone(), user.password.clone())).collect();
        let passwords = (!login.users.is_empty()).then(|| Passwords::new(Basic { realm: "goms".to_owned(), users }));
        let passwords = passwords.and_then(|made| {
            made.map_err(|_| log::error!("no random numbers, so no password of the admin port is taken")).ok()
        });
        Self { login, is_loopback, passwords, in_force: watch::Sender::new(()) }
    }

    fn stay(&self) -> Stay {
        Stay::until_closed(self.in_force.subscribe(), None)
    }

    /// Whether who brings this token only sees; `None`: it is none. The time tells nothing of it.
    fn of_token(&self, token: &[u8]) -> Option<bool> {
        let is = |known: &Option<String>| known.as_ref().is_some_and(|known| known.as_bytes().ct_eq(token).into());
        let (may_change, may_read) = (is(&self.login.token), is(&self.login.read_only_token));
        (may_change || may_read).then_some(!may_change)
    }

    /// An address, `localhost`, or a name that the config has.
    fn is_own_host(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.login.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self {
            rules: RwLock::new(Arc::new(Rules::new(Login::default(), true))),
            sessions: Sessions::default(),
            attempts: Attempts::default(),
            csrf: sessions::random(),
        }
    }
}

impl Doorkeeper {
    /// Puts these in force, if they are others. Whoever was in by those before says again who they are.
    pub fn replace(&self, login: Login, is_loopback: bool) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if rules.login == login && rules.is_loopback == is_loopback {
            return;
        }
        self.sessions.clear();
        *rules = Arc::new(Rules::new(login, is_loopback));
    }

    /// The token that only reads, and the one that may change.
    pub fn tokens(&self) -> (Option<String>, Option<String>) {
        let login = &self.rules().login;
        (login.read_only_token.clone(), login.token.clone())
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether names and passwords stand in the config.
    pub fn has_users(&self) -> bool {
        !self.rules().login.users.is_empty()
    }

    /// What forms bring of who has no session.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// Why they are not let in.
    pub async fn identify(&self, request: &HttpRequest) -> Result<Known, Refusal> {
        let rules = self.rules();
        if !rules.login.is_set() {
            return self.without_login(&rules, request);
        }
        if let Some(session) = form::session_of(request).and_then(|id| self.sessions.find(&id)) {
            let (is_read_only, stay) = (session.is_read_only, session.stay());
            return Ok(Known { is_read_only, csrf: Some(session.csrf), has_session: true, stay });
        }
        let header = request.headers().get(AUTHORIZATION).ok_or(Refusal::Anonymous)?;
        let (scheme, credentials) = split(header.as_bytes()).ok_or(Refusal::Wrong)?;
        let (is_read_only, csrf) = if scheme.eq_ignore_ascii_case(b"bearer") {
            rules.of_token(credentials).map(|is_read_only| (is_read_only, None)).ok_or(Refusal::Wrong)?
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            // a browser sends it by itself, so its forms are checked
            (self.of_basic(&rules, address_of(request), credentials).await?, Some(self.csrf.clone()))
        } else {
            return Err(Refusal::Wrong);
        };
        Ok(Known { is_read_only, csrf, has_session: false, stay: rules.stay() })
    }

    fn without_login(&self, rules: &Rules, request: &HttpRequest) -> Result<Known, Refusal> {
        if !rules.is_loopback {
            return Err(Refusal::Closed);
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !rules.is_own_host(host) {
            return Err(Refusal::ForeignHost);
        }
        Ok(Known { is_read_only: false, csrf: Some(self.csrf.clone()), has_session: false, stay: rules.stay() })
    }

    /// Opens a session for who filled in the form; gives its id.
    ///
    /// # Errors
    /// Why not.
    pub async fn log_in(&self, from: Option<IpAddr>, user: &str, secret: &str) -> Result<String, Refusal> {
        let (rules, credentials) = (self.rules(), STANDARD.encode(format!("{user}:{secret}")));
        let is_read_only = self.of_basic(&rules, from, credentials.as_bytes()).await?;
        Ok(self.sessions.open(is_read_only))
    }

    /// A user, or whoever has a token as their password: who has a right token is let in whatever others tried.
    async fn of_basic(&self, rules: &Rules, from: Option<IpAddr>, credentials: &[u8]) -> Result<bool, Refusal> {
        let decoded = STANDARD.decode(credentials.trim_ascii()).map_err(|_| Refusal::Wrong)?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Refusal::Wrong)?;
        if let Some(is_read_only) = rules.of_token(&decoded[colon + 1..]) {
            return Ok(is_read_only);
        }
        let passwords = rules.passwords.as_ref().ok_or(Refusal::Wrong)?;
        self.attempts.may_try(from)?;
        match passwords.user(credentials).await {
            Ok(name) => Ok(rules.login.users.get(&name).is_none_or(|user| user.is_read_only)),
            Err(Refused::Wrong(_)) => {
                self.attempts.note(from);
                Err(Refusal::Wrong)
            }
            Err(Refused::Busy) => Err(Refusal::Later(1)),
        }
    }

    /// Ends a session.
    pub fn log_out(&self, id: &str) {
        self.sessions.end(id);
    }
}

/// From where a request comes: the connection's address, whatever it says of itself.
fn address_of(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|address| address.ip())
}

fn split(header: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    Some((&header[..space], header[space + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use futures_util::FutureExt;

    use super::*;

    fn keeper(is_loopback: bool) -> Doorkeeper {
        let hash = bcrypt::hash("secret", 4).expect("a hash");
        let users = BTreeMap::from([("ann".to_owned(), User { password: hash, is_read_only: true })]);
        let keeper = Doorkeeper::default();
        let login = Login {
            token: Some("the-token-of-all".into()),
            read_only_token: Some("the-token-of-few".into()),
            users,
            hosts: Vec::new(),
        };
        keeper.replace(login, is_loopback);
        keeper
    }

    async fn asked(keeper: &Doorkeeper, authorization: &str) -> Result<(bool, bool), Refusal> {
        let request = TestRequest::default().insert_header(("authorization", authorization)).to_http_request();
        keeper.identify(&request).await.map(|known| (known.is_read_only, known.csrf.is_some()))
    }

    #[tokio::test]
    async fn tokens_and_users_are_let_in() {
        let keeper = keeper(false);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(asked(&keeper, "Bearer the-token-of-all").await, Ok((false, false)));
        assert_eq!(asked(&keeper, "bearer  the-token-of-few ").await, Ok((true, false)));
        assert_eq!(asked(&keeper, &basic("x:the-token-of-all")).await, Ok((false, true)));
        assert_eq!(asked(&keeper, &basic("ann:secret")).await, Ok((true, true)));
        for wrong in ["Bearer the-token-of-al", "Digest x", "nonsense", &basic("ann:Secret"), &basic("ann"), "Basic é"]
        {
            assert_eq!(asked(&keeper, wrong).await, Err(Refusal::Wrong), "{wrong}");
        }
        assert_eq!(keeper.identify(&TestRequest::default().to_http_request()).await.err(), Some(Refusal::Anonymous));
    }

    #[tokio::test]
    async fn who_guesses_must_wait() {
        let keeper = keeper(false);
        let ask = async |address: [u8; 4], authorization: String| {
            let request = TestRequest::default().peer_addr((address, 5000).into());
            let request = request.insert_header(("authorization", authorization)).to_http_request();
            keeper.identify(&request).await.map(|known| known.is_read_only)
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let mut answers = Vec::new();
        for _ in 0..12 {
            answers.push(ask([10, 0, 0, 1], basic("ann:guess")).await);
        }
        assert_eq!(answers[9], Err(Refusal::Wrong));
        assert!(matches!(answers[10], Err(Refusal::Later(1..=60))), "{:?}", answers[10]);
        assert!(matches!(ask([10, 0, 0, 1], basic("ann:secret")).await, Err(Refusal::Later(_))), "also when right");
        assert_eq!(ask([10, 0, 0, 2], basic("ann:secret")).await, Ok(true), "others are let in");
        for _ in 0..12 {
            assert_eq!(
                ask([10, 0, 0, 1], "Bearer guess".into()).await,
                Err(Refusal::Wrong),
                "a token is never guessed"
            );
        }
        assert_eq!(ask([10, 0, 0, 1], "Bearer the-token-of-all".into()).await, Ok(false), "the owner is never out");
        assert_eq!(ask([10, 0, 0, 1], basic("x:the-token-of-few")).await, Ok(true), "nor by the form");
    }

    #[tokio::test]
    async fn a_stay_ends_with_what_let_in() {
        let keeper = keeper(true);
        let id = keeper.log_in(None, "", "the-token-of-all").await.expect("let in");
        let other = keeper.log_in(None, "ann", "secret").await.expect("let in");
        let stay = async |name: &'static str, value: String| {
            let request = TestRequest::default().insert_header((name, value)).to_http_request();
            keeper.identify(&request).await.expect("let in").stay
        };
        let mut first = stay("cookie", format!("goms-session-8080={id}")).await;
        let mut second = stay("cookie", format!("goms-session-8080={other}")).await;
        let mut bearer = stay("authorization", "Bearer the-token-of-few".into()).await;
        keeper.log_out(&id);
        assert!(first.ended().now_or_never().is_some());
        keeper.replace(keeper.rules().login.clone(), true);
        assert!(second.ended().now_or_never().or(bearer.ended().now_or_never()).is_none(), "the same login again");
        keeper.replace(Login { token: Some("another-token-of-all".into()), ..Login::default() }, true);
        assert!(second.ended().now_or_never().is_some() && bearer.ended().now_or_never().is_some());
    }

    #[tokio::test]
    async fn without_a_login_only_this_machine_is_let_in() {
        let keeper = Doorkeeper::default();
        for (host, is_own) in [
            ("127.0.0.1:8280", true),
            ("[::1]:8280", true),
            ("localhost:8280", true),
            ("LOCALHOST", true),
            ("goms.example.com:8280", false),
            ("evil.com", false),
            ("127.0.0.1.evil.com", false),
            ("", false),
        ] {
            let request = TestRequest::default().insert_header(("host", host)).to_http_request();
            assert_eq!(keeper.identify(&request).await.err(), (!is_own).then_some(Refusal::ForeignHost), "{host}");
        }
        keeper.replace(Login { hosts: vec!["goms.example.com".into()], ..Login::default() }, true);
        let request = TestRequest::default().insert_header(("host", "goms.example.com:8280")).to_http_request();
        assert!(keeper.identify(&request).await.is_ok());
        keeper.replace(Login::default(), false);
        assert_eq!(keeper.identify(&request).await.err(), Some(Refusal::Closed));
    }

    #[tokio::test]
    async fn a_session_ends_with_its_login() {
        let keeper = keeper(true);
        let id = keeper.log_in(None, "", "the-token-of-few").await.expect("let in");
        let request = TestRequest::default().insert_header(("cookie", format!("a=b; goms-session-8080={id}")));
        let request = request.to_http_request();
        let known = keeper.identify(&request).await.expect("let in");
        assert!(known.is_read_only && known.has_session && known.csrf.as_deref() != Some(keeper.csrf()));
        keeper.replace(Login { token: Some("another-token-of-all".into()), ..Login::default() }, true);
        assert_eq!(keeper.identify(&request).await.err(), Some(Refusal::Anonymous));
        assert_eq!(keeper.log_in(None, "ann", "secret").await, Err(Refusal::Wrong));
    }
}
