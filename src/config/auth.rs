//! `auth`: the ways in which callers prove who they are. Nothing here repeats a secret in a message.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::address::redacted;
use super::decode::{Decoder, Field, Table, word};
use super::names::{self, shown};
use super::units::{parse_duration, parse_positive_duration};
use super::values::{header_name, parameter_name};
use crate::gateway::access::{
    self, Algorithm, ApiKeys, Basic, Digest, JwksPlace, Jwt, JwtKey, KeyPlace, Proof, Way, Ways,
};
use crate::upstream::headers;

const PROOFS: [&str; 3] = ["apiKeys", "basic", "jwt"];
const DEFAULT_HEADER: &str = "x-api-key";
const DEFAULT_REALM: &str = "goms";
/// What marks the digest of a key.
const DIGEST: &str = "sha256:";
/// Shorter ones can be guessed, or are a place holder.
const LEAST_KEY: usize = 16;
/// Clocks of a fleet differ by less.
const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
/// More would let tokens live on that were to end.
const MOST_LEEWAY: Duration = Duration::from_secs(600);
const DEFAULT_REFRESH: Duration = Duration::from_secs(15 * 60);

/// The words of [`Algorithm`] (RFC 7518 section 3.1, RFC 8037); `none` is none of them.
pub(super) const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Reads `auth`.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Ways {
    let mut ways = Ways::new();
    for (name, field) in decoder.names(field, way_name).iter() {
        if let Some(way) = way(decoder, field) {
            ways.insert(name.to_owned(), way);
        }
    }
    ways
}

fn way_name(text: &str) -> Result<String, String> {
    if text == "none" {
        return Err("`none` is what a route says that asks for no proof; name the way otherwise".to_owned());
    }
    names::action_name(text).map_err(|message| message.replace("action name", "name of a way"))
}

fn way(decoder: &mut Decoder, field: &Field<'_>) -> Option<Way> {
    let table = decoder.table(field, &[&PROOFS[..], &["callerHeader"]].concat());
    let caller_header = table.get("callerHeader").and_then(|field| decoder.read(&field, told_header));
    let given: Vec<&str> = PROOFS.into_iter().filter(|key| table.get(key).is_some()).collect();
    let [kind] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_owned() } else { names::list(&given) };
        decoder.fault(&field.place, format!("needs one of {}, has {found}", names::list(&PROOFS)));
        return None;
    };
    let inner = table.get(kind)?;
    let proof = match *kind {
        "apiKeys" => Proof::ApiKeys(api_keys(decoder, &inner)?),
        "basic" => Proof::Basic(basic(decoder, &inner)?),
        _ => Proof::Jwt(Box::new(jwt(decoder, &inner)?)),
    };
    Some(Way { proof, caller_header })
}

/// A header by which a service learns something of the caller.
fn told_header(text: &str) -> Result<String, String> {
    let name = header_name(text)?;
    let is_taken = ["authorization", "content-type", "content-encoding", "cookie"].contains(&name.as_str());
    if is_taken || !headers::passes_down(&name, std::iter::empty()) {
        return Err(format!("`{}` has a meaning of its own; write for example `x-caller`", shown(text)));
    }
    Ok(name)
}

fn api_keys(decoder: &mut Decoder, field: &Field<'_>) -> Option<ApiKeys> {
    let table = decoder.table(field, &["header", "query", "keys"]);
    if let (Some(_), Some(query)) = (table.get("header"), table.get("query")) {
        decoder.fault(&query.place, "stands beside `header`; leave one out");
    }
    let place = match table.get("query") {
        Some(field) => KeyPlace::Query(decoder.read(&field, parameter_name)?),
        None => KeyPlace::Header(match table.get("header") {
            Some(field) => decoder.read(&field, told_header)?,
            None => DEFAULT_HEADER.to_owned(),
        }),
    };
    let Some(callers) = table.get("keys") else {
        decoder.fault(&field.place, "has no `keys`; write for example `keys: { acme: \"sha256:…\" }`");
        return None;
    };
    let mut keys: Vec<(Digest, String)> = Vec::new();
    for (name, field) in decoder.names(&callers, user_name).iter() {
        for field in decoder.list(field) {
            let Some(text) = decoder.some_text(&field) else { continue };
            match digest(&text) {
                Ok(digest) => match keys.iter().find(|(known, _)| *known == digest) {
                    Some((_, other)) => decoder.fault(&field.place, format!("is the key of `{other}` already")),
                    None => keys.push((digest, name.to_owned())),
                },
                Err(message) => decoder.fault(&field.place, message),
            }
        }
    }
    Some(ApiKeys { place, keys })
}

fn digest(text: &str) -> Result<Digest, String> {
    let Some(hex) = text.strip_prefix(DIGEST) else {
        return if text.len() < LEAST_KEY {
            Err(format!("must have at least {LEAST_KEY} characters, or be `{DIGEST}` with the digest of the key"))
        } else {
            Ok(Sha256::digest(text.as_bytes()).into())
        };
    };
    let mut digest = Digest::default();
    let digits: Vec<u8> =
        hex.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
    if hex.len() != 64 || digits.len() != 64 {
        return Err(format!("must have 64 hexadecimal digits behind `{DIGEST}`, as `sha256sum` prints them"));
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(digest)
}

/// What a caller is called: it travels in headers, and before a `:` in `Basic`.
fn user_name(text: &str) -> Result<String, String> {
    match text.chars().find(|c| *c == ':' || c.is_control()) {
        _ if text.is_empty() => Err("a caller's name must not be empty".to_owned()),
        Some(bad) => Err(format!("a caller's name must not contain `{}`, got `{}`", bad.escape_default(), shown(text))),
        None => Ok(text.to_owned()),
    }
}

fn basic(decoder: &mut Decoder, field: &Field<'_>) -> Option<Basic> {
    let table = decoder.table(field, &["realm", "users"]);
    let realm =
        table.get("realm").and_then(|field| decoder.read(&field, realm)).unwrap_or_else(|| DEFAULT_REALM.to_owned());
    let Some(field) = table.get("users") else {
        decoder.fault(&field.place, "has no `users`; write for example `users: { ann: \"$2y$…\" }`");
        return None;
    };
    let mut users = BTreeMap::new();
    for (name, field) in decoder.names(&field, user_name).iter() {
        let Some(hash) = decoder.some_text(field) else { continue };
        match access::is_password_hash(&hash) {
            Ok(()) => drop(users.insert(name.to_owned(), hash)),
            Err(message) => decoder.fault(&field.place, message),
        }
    }
    Some(Basic { realm, users })
}

/// It stands in quotes in a header.
fn realm(text: &str) -> Result<String, String> {
    let is_good = text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && !b"\"\\".contains(&byte));
    if is_good { Ok(text.to_owned()) } else { Err("must be printable ASCII without `\"` and `\\`".to_owned()) }
}

fn jwt(decoder: &mut Decoder, field: &Field<'_>) -> Option<Jwt> {
    let known = [
        "secret",
        "publicKeyFile",
        "jwks",
        "refresh",
        "caFile",
        "algorithms",
        "issuer",
        "audience",
        "leeway",
        "caller",
        "headers",
    ];
    let table = decoder.table(field, &known);
    let texts = |decoder: &mut Decoder, key| -> Vec<String> {
        let list = table.get(key).map(|field| decoder.list(&field)).unwrap_or_default();
        list.iter().filter_map(|field| decoder.some_text(field)).collect()
    };
    let algorithms: Vec<Algorithm> = table
        .get("algorithms")
        .map(|field| decoder.list(&field))
        .unwrap_or_default()
        .iter()
        .filter_map(|field| decoder.read(field, word("algorithm", &ALGORITHMS)))
        .collect();
    let (key, algorithms) = key(decoder, field, &table, algorithms)?;
    let leeway = table.get("leeway").and_then(|field| decoder.read(&field, leeway));
    let caller = table.get("caller").and_then(|field| decoder.some_text(&field));
    let mut told = BTreeMap::new();
    if let Some(field) = table.get("headers") {
        for (header, field) in decoder.names(&field, told_header).iter() {
            if let Some(claim) = decoder.some_text(field) {
                told.insert(header.to_owned(), claim);
            }
        }
    }
    Some(Jwt {
        key,
        algorithms,
        issuers: texts(decoder, "issuer"),
        audiences: texts(decoder, "audience"),
        leeway: leeway.unwrap_or(DEFAULT_LEEWAY),
        caller: caller.unwrap_or_else(|| "sub".to_owned()),
        headers: told,
    })
}

fn leeway(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        long if long > MOST_LEEWAY => Err(format!("must be at most `10m`, got `{text}`")),
        leeway => Ok(leeway),
    }
}

/// What verifies tokens, and with which algorithms: those that were named, or the usual one.
fn key(
    decoder: &mut Decoder,
    outer: &Field<'_>,
    table: &Table<'_>,
    algorithms: Vec<Algorithm>,
) -> Option<(JwtKey, Vec<Algorithm>)> {
    const KEYS: [&str; 3] = ["secret", "publicKeyFile", "jwks"];
    let given: Vec<&str> = KEYS.into_iter().filter(|key| table.get(key).is_some()).collect();
    let [kind] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_owned() } else { names::list(&given) };
        decoder.fault(&outer.place, format!("needs one of {}, has {found}", names::list(&KEYS)));
        return None;
    };
    for (key, field) in ["refresh", "caFile"].into_iter().filter_map(|key| table.get(key).map(|field| (key, field))) {
        if *kind != "jwks" {
            decoder.fault(&field.place, format!("`{key}` is for `jwks`, here is `{kind}`"));
        }
    }
    let usual = if *kind == "secret" { Algorithm::HS256 } else { Algorithm::RS256 };
    let algorithms = if algorithms.is_empty() { vec![usual] } else { algorithms };
    let is_shared = |algorithm: &Algorithm| [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512].contains(algorithm);
    let field = table.get(kind)?;
    if let Some(bad) = algorithms.iter().find(|algorithm| is_shared(algorithm) != (*kind == "secret")) {
        let message = match *kind {
            "secret" => format!("a secret cannot verify {bad:?}; use HS256, HS384 or HS512"),
            _ => format!("{bad:?} needs a `secret`: whoever can read a public key could sign with it"),
        };
        decoder.fault(&field.place, message);
        return None;
    }
    let key = match *kind {
        "secret" => secret(decoder, &field, &algorithms)?,
        "publicKeyFile" => {
            let path = decoder.some_text(&field)?;
            let checked =
                std::fs::read_to_string(&path).map_err(|error| format!("cannot read `{}`: {error}", shown(&path)));
            let checked = checked.and_then(|pem| access::is_public_key(&pem, &algorithms).map(|()| pem));
            let pem = checked.map_err(|message| decoder.fault(&field.place, message)).ok()?;
            JwtKey::Pem(pem, PathBuf::from(path))
        }
        _ => {
            let ca_file = table.get("caFile").and_then(|field| decoder.some_text(&field)).map(PathBuf::from);
            let refresh = table.get("refresh").and_then(|field| decoder.read(&field, parse_positive_duration));
            let from = decoder.read(&field, |text| jwks(text, ca_file))?;
            JwtKey::Jwks { from, refresh: refresh.unwrap_or(DEFAULT_REFRESH) }
        }
    };
    Some((key, algorithms))
}

/// RFC 7518 section 3.2: as long as the hash at least.
fn secret(decoder: &mut Decoder, field: &Field<'_>, algorithms: &[Algorithm]) -> Option<JwtKey> {
    let secret = decoder.some_text(field)?;
    let least = algorithms.iter().map(|algorithm| match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    });
    let least = least.max().unwrap_or(32);
    if secret.len() < least {
        decoder.fault(&field.place, format!("must have at least {least} bytes (RFC 7518 section 3.2)"));
        return None;
    }
    Some(JwtKey::Secret(secret.into_bytes()))
}

fn jwks(text: &str, ca_file: Option<PathBuf>) -> Result<JwksPlace, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        let url =
            url::Url::parse(text).map_err(|error| format!("`{}` is no address: {error}", shown(&redacted(text))))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must hold no name and password: published keys are for everybody".to_owned());
        }
        return match (url.host(), ca_file) {
            (None, _) => Err(format!("`{}` has no host", shown(&redacted(text)))),
            (_, Some(_)) if url.scheme() == "http" => Err("`caFile` vouches for `https://` only".to_owned()),
            (_, ca_file) => Ok(JwksPlace::Url(text.to_owned(), ca_file)),
        };
    }
    let json = std::fs::read_to_string(text).map_err(|error| format!("cannot read `{}`: {error}", shown(text)))?;
    access::is_key_set(&json).map_err(|message| format!("`{}` {message}", shown(text)))?;
    Ok(JwksPlace::File(PathBuf::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_as_its_digest() {
        let plain = digest("correct horse battery").expect("long enough");
        let hex = "sha256:".to_owned() + &plain.map(|byte| format!("{byte:02X}")).concat();
        assert_eq!(digest(&hex), Ok(plain));
        for bad in ["short", "redacted", "sha256:", "sha256:00", &format!("sha256:{}", "g".repeat(64))] {
            assert!(digest(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_of_keys_holds_no_password() {
        for text in ["https://ann:secret@issuer.test/keys", "https://ann:secret@:x/keys"] {
            let message = jwks(text, None).expect_err(text);
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
