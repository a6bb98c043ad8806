//! Whether those whom `allow` and `deny` name can be anybody: callers of API keys and of `basic` are listed in the config, those
//! of tokens are not, so a plain name is taken as it is where a way of the route takes tokens.

use std::collections::BTreeSet;

use super::names::{list, nearest, shown};
use crate::gateway::access::{Proof, Way, Ways, Who};

/// What `who` says that can be true of nobody who comes by one of these `asked` ways.
///
/// `is_own`: it stands where the ways stand or nearer to the route. What is inherited may name callers of other ways of `auth`.
pub(super) fn faults(who: &Who, asked: &[String], ways: &Ways, is_own: bool) -> Vec<String> {
    let meant: Vec<(&str, &Way)> = asked.iter().filter_map(|name| Some((name.as_str(), ways.get(name)?))).collect();
    if meant.len() < asked.len() || meant.is_empty() {
        return Vec::new(); // which is a fault of its own
    }
    let known = Known { meant, ways, is_own };
    let mut faults: Vec<String> = who.callers.iter().filter_map(|caller| known.fault(caller)).collect();
    if is_own && !who.claims.is_empty() && known.meant.iter().all(|(_, way)| named(way).is_some()) {
        faults.push("asks for claims, which only tokens have, and no way of `auth` here is `jwt`".to_owned());
    }
    faults
}

struct Known<'c> {
    /// The ways that are asked for.
    meant: Vec<(&'c str, &'c Way)>,
    ways: &'c Ways,
    is_own: bool,
}

impl Known<'_> {
    fn fault(&self, caller: &str) -> Option<String> {
        let takes_tokens = self.meant.iter().any(|(_, way)| named(way).is_none());
        if let Some((of, name)) = caller.split_once('/') {
            let way = self.meant.iter().find(|(known, _)| *known == of).map(|(_, way)| *way);
            if let Some(way) = way.or_else(|| self.ways.get(of).filter(|_| !self.is_own)) {
                let callers = named(way)?;
                let message =
                    || format!("names `{}`, but {}", shown(caller), instead(name, &callers, &format!("{of}/")));
                return (!callers.contains(&name)).then(message);
            }
            if self.ways.contains_key(of) {
                return Some(format!("names `{}`, but `auth` here does not ask for `{of}`", shown(caller)));
            }
            let near = nearest(of, self.meant.iter().map(|(known, _)| *known));
            return match near {
                Some(near) if takes_tokens => Some(format!(
                    "names `{0}`, and `{1}` is no way of `auth`; did you mean `{near}/{name}`? A name with `/` in a token is written \
                     with its way: `{near}/{0}`",
                    shown(caller),
                    shown(of),
                )),
                _ if takes_tokens => None,
                _ => Some(self.unknown(caller, near.map(|near| format!("{near}/{name}")))),
            };
        }
        let is_it = |way: &Way| named(way).is_none_or(|callers| callers.contains(&caller));
        let is_known = self.meant.iter().any(|(_, way)| is_it(way)) || (!self.is_own && self.ways.values().any(is_it));
        (!is_known).then(|| self.unknown(caller, None))
    }

    fn unknown(&self, caller: &str, near: Option<String>) -> String {
        let callers: Vec<&str> = self.meant.iter().filter_map(|(_, way)| named(way)).flatten().collect();
        match near {
            Some(near) => {
                format!("names `{}`, and no way of `auth` has this name; did you mean `{near}`?", shown(caller))
            }
            None => format!("names `{}`, but {}", shown(caller), instead(caller, &callers, "")),
        }
    }
}

/// The callers of a way; `None`: they are whoever a token names.
fn named(way: &Way) -> Option<Vec<&str>> {
    match &way.proof {
        Proof::ApiKeys(keys) => {
            let names: BTreeSet<&str> = keys.keys.iter().map(|(_, name)| name.as_str()).collect();
            Some(names.into_iter().collect()) // one may have several keys
        }
        Proof::Basic(basic) => Some(basic.users.keys().map(String::as_str).collect()),
        Proof::Jwt(_) => None,
    }
}

/// Who there is in place of somebody.
fn instead(name: &str, callers: &[&str], before: &str) -> String {
    /// More would hide the others.
    const SHOWN: usize = 10;
    match nearest(name, callers.iter().copied()) {
        Some(near) => format!("there is no such caller; did you mean `{before}{near}`?"),
        None if callers.is_empty() => "the ways of `auth` here have no callers".to_owned(),
        None => {
            let more = if callers.len() > SHOWN { ", …" } else { "" };
            format!("there is no such caller; known: {}{more}", list(&callers[..callers.len().min(SHOWN)]))
        }
    }
}
