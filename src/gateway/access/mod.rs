//! Who may: the ways in which callers prove who they are, and who of them is let in.
//!
//! ```text
//! address ─ deny/allow ─► 403     credentials ─ ways of the route ─► 401     caller ─ deny/allow ─► 403
//! ```
//! This file has what the config says; `gate` makes of it what a route needs. Each way is a file: `api_keys`, `basic`,
//! `jwt` (with `signature`, its cryptography, and `jwks`, the keys that somebody else publishes).

mod api_keys;
mod basic;
mod caller;
mod gate;
mod jwks;
mod jwt;
mod signature;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::trace::Redact;

pub use basic::{Passwords, Refused};
pub use jwt::Algorithm;

pub(super) use caller::Caller;
pub(super) use gate::{Gate, Known};
pub(super) use jwks::Sources;

/// The ways by name.
pub type Ways = BTreeMap<String, Way>;

/// A way in which a caller proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// How.
    pub proof: Proof,
    /// The request header in which a service reads the caller's name; in lower case.
    pub caller_header: Option<String>,
}

/// What is asked of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A key of its own.
    ApiKeys(ApiKeys),
    /// Name and password (RFC 7617).
    Basic(Basic),
    /// A signed token (RFC 7519, RFC 6750).
    Jwt(Box<Jwt>),
}

/// SHA-256 of a secret.
pub type Digest = [u8; 32];

/// Keys of callers.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeys {
    /// Where the key stands.
    pub place: KeyPlace,
    /// The digest of each key, and whose it is; a caller may have several.
    pub keys: Vec<(Digest, String)>,
}

/// Where a key stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In this header; in lower case.
    Header(String),
    /// In this query parameter, decoded.
    Query(String),
}

/// Names and passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// What a browser shows when it asks.
    pub realm: String,
    /// Each user's password as a hash that [`is_password_hash`] knows.
    pub users: BTreeMap<String, String>,
}

/// How tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// What verifies them.
    pub key: JwtKey,
    /// Which `alg` a token may have; all of one kind of key.
    pub algorithms: Vec<Algorithm>,
    /// Which `iss` it may have; empty: any.
    pub issuers: Vec<String>,
    /// Of which `aud` it must have one; empty: it must have none (RFC 7519 section 4.1.3).
    pub audiences: Vec<String>,
    /// How far clocks may differ for `exp` and `nbf`.
    pub leeway: Duration,
    /// The claim that names the caller.
    pub caller: String,
    /// Request headers (in lower case) that tell a service a claim, by the claim's name.
    pub headers: BTreeMap<String, String>,
}

/// What verifies tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum JwtKey {
    /// A secret that the issuer has too (HS256 and the like).
    Secret(Vec<u8>),
    /// A public key in PEM, and the file it was read from.
    Pem(String, PathBuf),
    /// Public keys that somebody publishes (RFC 7517).
    Jwks {
        /// Where.
        from: JwksPlace,
        /// How often they are read again.
        refresh: Duration,
    },
}

/// Where keys are published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JwksPlace {
    /// An `http://` or `https://` address, and who vouches for it besides those whom this system trusts.
    Url(String, Option<PathBuf>),
    /// A file.
    File(PathBuf),
}

/// Who is let in, where a route says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The ways of which one must succeed; empty: nobody proves anything.
    pub ways: Vec<String>,
    /// Who is let in; `None`: everybody.
    pub allow: Option<Who>,
    /// Who is not, also where `allow` would.
    pub deny: Option<Who>,
}

/// Some callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// By name; `WAY/NAME` where only that way's is meant.
    pub callers: Vec<String>,
    /// By all of these claims, each with one of its values.
    pub claims: BTreeMap<String, Vec<String>>,
    /// By address.
    pub addresses: Vec<IpNet>,
}

/// Whether a text is a password's hash of a kind that `basic` checks: argon2 (PHC string) or bcrypt.
///
/// # Errors
/// What it is not, for the user.
pub fn is_password_hash(text: &str) -> Result<(), String> {
    basic::check_hash(text)
}

/// Whether a text is a public key in PEM for these algorithms.
///
/// # Errors
/// Why it is not, for the user.
pub fn is_public_key(pem: &str, algorithms: &[Algorithm]) -> Result<(), String> {
    jwt::public_key(pem, algorithms).map(|_| ())
}

/// Whether a text is a key set (RFC 7517) with a key that can verify tokens.
///
/// # Errors
/// Why it is not, for the user.
pub fn is_key_set(json: &str) -> Result<(), String> {
    jwks::KeySet::parse(json.as_bytes()).map(|_| ())
}

/// Adds to `redact` where these ways' credentials stand, so that no event shows them.
pub fn redact_credentials(ways: &Ways, redact: &mut Redact) {
    for way in ways.values() {
        match &way.proof {
            Proof::ApiKeys(ApiKeys { place: KeyPlace::Header(header), .. }) => redact.headers.push(header.clone()),
            Proof::ApiKeys(ApiKeys { place: KeyPlace::Query(name), .. }) => redact.query.push(name.clone()),
            Proof::Basic(_) | Proof::Jwt(_) => {} // `authorization` never shows
        }
    }
}

impl Access {
    /// Whether nobody is kept out.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ways.is_empty() && self.allow.is_none() && self.deny.is_none()
    }
}

impl Who {
    /// Whether it can only be told of a caller who has proved who it is.
    #[must_use]
    pub fn names_callers(&self) -> bool {
        !self.callers.is_empty() || !self.claims.is_empty()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.callers.is_empty() {
            parts.push(format!("callers {}", self.callers.join(", ")));
        }
        for (claim, values) in &self.claims {
            parts.push(format!("claim {claim} {}", values.join(", ")));
        }
        if !self.addresses.is_empty() {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            parts.push(format!("addresses {}", addresses.join(", ")));
        }
        out.write_str(&parts.join("; "))
    }
}

impl fmt::Display for JwksPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url, _) => out.write_str(url.split('?').next().unwrap_or_default()),
            Self::File(path) => path.display().fmt(out),
        }
    }
}

// none of these shows a secret in a message or a log

impl fmt::Debug for ApiKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.keys.iter().map(|(_, name)| name.as_str()).collect();
        out.debug_struct("ApiKeys").field("place", &self.place).field("callers", &names).finish()
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.users.keys().collect();
        out.debug_struct("Basic").field("realm", &self.realm).field("users", &names).finish()
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => out.write_str("Secret"),
            Self::Pem(_, file) => write!(out, "Pem({})", file.display()),
            Self::Jwks { from, .. } => write!(out, "Jwks({from})"),
        }
    }
}
