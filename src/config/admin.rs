//! `admin`: who may see the admin port's pages and its JSON.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::decode::{Decoder, Field, boolean};
use super::print::{REDACTED, put, texts};
use crate::dashboard::{Login, SHORTEST_TOKEN, User};
use crate::gateway::access;

/// Reads the section.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Login {
    let table = decoder.table(field, &["token", "readOnlyToken", "users", "hosts"]);
    let mut token = |key| table.get(key).and_then(|field| decoder.read(&field, token));
    let (all, few) = (token("token"), token("readOnlyToken"));
    if let (Some(field), true) = (table.get("readOnlyToken"), all.is_some() && all == few) {
        decoder.fault(&field.place, "must be another than `token`, which may change things");
    }
    let users = table.get("users").map(|field| users(decoder, &field)).unwrap_or_default();
    let hosts = table.get("hosts").map(|field| decoder.list(&field)).unwrap_or_default();
    let hosts = hosts.iter().filter_map(|field| decoder.read(field, host)).collect();
    Login { token: all, read_only_token: few, users, hosts }
}

fn users(decoder: &mut Decoder, field: &Field<'_>) -> BTreeMap<String, User> {
    let mut users = BTreeMap::new();
    for (name, field) in decoder.names(field, user_name).iter() {
        let (hash, is_read_only) = if field.is_table() {
            let table = decoder.table(field, &["password", "readOnly"]);
            let is_read_only = table.get("readOnly").and_then(|field| decoder.read(&field, boolean)).unwrap_or(false);
            match table.get("password") {
                Some(hash) => (hash, is_read_only),
                None => {
                    decoder.fault(
                        &field.place,
                        "has no `password`; write what `htpasswd -nB NAME` prints behind the colon",
                    );
                    continue;
                }
            }
        } else {
            (field.clone(), false)
        };
        let Some(password) = decoder.some_text(&hash) else { continue };
        match access::is_password_hash(&password) {
            Ok(()) => drop(users.insert(name.to_owned(), User { password, is_read_only })),
            Err(message) => decoder.fault(&hash.place, message),
        }
    }
    users
}

/// It travels in a header. What was written is not quoted: it may be the real one with a slip.
fn token(text: &str) -> Result<String, String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be printable ASCII without spaces, as it travels in a header".to_owned());
    }
    if text.len() < SHORTEST_TOKEN {
        return Err(format!(
            "must have {SHORTEST_TOKEN} letters at least, so that nobody guesses it; `openssl rand -hex 16` makes one"
        ));
    }
    Ok(text.to_owned())
}

fn user_name(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        true => Err("a user's name must not be empty, nor contain `:`".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn host(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    match is_name {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!("`{text}` is no name of a host; write it without port, for example `goms.example.com`")),
    }
}

/// As it could stand in a file, without secrets; `None` where nothing is set.
pub(super) fn shown(login: &Login) -> Option<Mapping> {
    let mut admin = Mapping::new();
    for (key, token) in [("token", &login.token), ("readOnlyToken", &login.read_only_token)] {
        if token.is_some() {
            put(&mut admin, key, REDACTED);
        }
    }
    if !login.users.is_empty() {
        let user = |(name, user): (&String, &User)| {
            let mut shown = Mapping::new();
            put(&mut shown, "password", REDACTED);
            put(&mut shown, "readOnly", user.is_read_only);
            (Value::from(name.as_str()), Value::from(shown))
        };
        put(&mut admin, "users", login.users.iter().map(user).collect::<Mapping>());
    }
    if !login.hosts.is_empty() {
        put(&mut admin, "hosts", texts(login.hosts.iter()));
    }
    (!admin.is_empty()).then_some(admin)
}
