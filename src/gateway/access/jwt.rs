//! Signed tokens: RFC 7519 (JWT) in compact form, brought as RFC 6750 says: `Authorization: Bearer …`.
//!
//! The `alg` of a token must be one that the config names, so `none` is never one, and a public key is never a secret of
//! HS256 (RFC 8725 section 3.1). A token must have `exp`; an extension that it calls critical (`crit`) is none we know.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::jwks::{KeySource, NoKey, Sources};
use super::{Caller, Jwt, JwtKey, signature};
use crate::json;

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// What is wrong with it.
    Wrong(&'static str),
    /// The keys that would tell are not here yet.
    KeysAway,
}

/// Checks tokens.
pub(super) struct Tokens {
    settings: Jwt,
    key: Key,
    /// What is checked of a token besides, for each algorithm.
    checks: Vec<(Algorithm, Validation)>,
}

enum Key {
    Own(DecodingKey),
    Published(Arc<KeySource>),
}

impl Tokens {
    /// # Errors
    /// When the key cannot be used; the config checks that too.
    pub fn new(settings: Jwt, sources: &Sources) -> Result<Self, String> {
        signature::install();
        let key = match &settings.key {
            JwtKey::Secret(secret) => Key::Own(DecodingKey::from_secret(secret)),
            JwtKey::Pem(pem, _) => Key::Own(public_key(pem, &settings.algorithms)?),
            JwtKey::Jwks { from, refresh } => Key::Published(sources.get(from, *refresh)),
        };
        let checks = settings.algorithms.iter().map(|algorithm| (*algorithm, validation(&settings, *algorithm)));
        Ok(Self { key, checks: checks.collect(), settings })
    }

    /// Who it is, from what stands behind `Bearer `.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn check(&self, token: &[u8]) -> Result<Caller, Refused> {
        let token = token.trim_ascii();
        if !is_sound(token) {
            return Err(Refused::Wrong("the token is no JWT"));
        }
        let header = decode_header(token).map_err(|_| Refused::Wrong("the token is no JWT"))?;
        if header.crit.is_some() {
            return Err(Refused::Wrong("the token asks for an extension that is not known"));
        }
        let checks = self.checks.iter().find(|(algorithm, _)| *algorithm == header.alg);
        let (_, checks) = checks.ok_or(Refused::Wrong("the token's algorithm is not accepted"))?;
        let published;
        let key = match &self.key {
            Key::Own(key) => key,
            Key::Published(source) => {
                published = self.published(source, &header).await?;
                &*published
            }
        };
        let told =
            decode::<Map<String, Value>>(token, key, checks).map_err(|error| Refused::Wrong(why(error.kind())))?;
        let mut caller = Caller { name: String::new(), claims: told.claims };
        caller.name = caller.told(&self.settings.caller).unwrap_or_default();
        Ok(caller)
    }

    async fn published(&self, source: &KeySource, header: &Header) -> Result<Arc<DecodingKey>, Refused> {
        source.key(header.kid.as_deref(), header.alg).await.map_err(|no_key| match no_key {
            NoKey::Unknown => Refused::Wrong("the token is signed with a key that its issuer does not publish"),
            NoKey::Away => Refused::KeysAway,
        })
    }
}

/// Whether header and claims may be read: both hold what is not known beforehand, and the header is read before the
/// signature says whose it is.
fn is_sound(token: &[u8]) -> bool {
    token.split(|byte| *byte == b'.').take(2).all(|part| {
        let text = URL_SAFE_NO_PAD.decode(part).ok(); // what is no such Base64 is not read at all
        text.is_none_or(|text| json::check(&text).is_ok())
    })
}

fn validation(settings: &Jwt, algorithm: Algorithm) -> Validation {
    let mut checks = Validation::new(algorithm);
    checks.leeway = settings.leeway.as_secs();
    checks.validate_nbf = true;
    let mut required = vec!["exp"];
    if !settings.audiences.is_empty() {
        checks.set_audience(&settings.audiences);
        required.push("aud");
    }
    if !settings.issuers.is_empty() {
        checks.set_issuer(&settings.issuers);
        required.push("iss");
    }
    checks.set_required_spec_claims(&required);
    checks
}

/// What a client is told; nothing that it does not know of its own token.
fn why(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token has no `exp`",
            "aud" => "the token has no `aud`",
            "iss" => "the token has no `iss`",
            _ => "the token lacks a claim",
        },
        ErrorKind::InvalidClaimFormat(_) => "the token has an `exp` or `nbf` that is no number",
        _ => "the token cannot be read",
    }
}

/// The key that a PEM text holds.
///
/// # Errors
/// Why it is none for these algorithms, for the user.
pub(super) fn public_key(pem: &str, algorithms: &[Algorithm]) -> Result<DecodingKey, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("holds a private key; give the public one, the private one is the issuer's alone".to_owned());
    }
    let family = algorithms.first().map_or(AlgorithmFamily::Rsa, |algorithm| algorithm.family());
    let (key, kind) = match family {
        AlgorithmFamily::Rsa => (DecodingKey::from_rsa_pem(pem.as_bytes()), "RSA"),
        AlgorithmFamily::Ec => (DecodingKey::from_ec_pem(pem.as_bytes()), "P-256 or P-384"),
        AlgorithmFamily::Ed => (DecodingKey::from_ed_pem(pem.as_bytes()), "Ed25519"),
        AlgorithmFamily::Hmac => return Err("is a public key, and HS256 and the like need a `secret`".to_owned()),
    };
    key.map_err(|_| {
        format!("is no public {kind} key in PEM, which {:?} needs", algorithms.first().unwrap_or(&Algorithm::RS256))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_read_that_would_exhaust_the_stack() {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let hostile = part(&format!(r#"{{"alg":"HS256","x":{}}}"#, json::tests::hostile()));
        let (good, claims) = (part(r#"{"alg":"HS256"}"#), part(r#"{"exp":1,"a":"\u0041"}"#));
        for (token, sound) in [
            (format!("{hostile}.{claims}.x"), false),
            (hostile.clone(), false),
            (format!("{good}.{hostile}.x"), false),
            (format!("{good}.{claims}.x"), true),
        ] {
            assert_eq!(is_sound(token.as_bytes()), sound);
        }
    }
}
