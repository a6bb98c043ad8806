//! A caller who has proved who it is.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::Who;

/// Who calls.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Caller {
    /// Its name; empty where its token has none.
    pub name: String,
    /// What its token says; empty for other proofs.
    pub claims: Map<String, Value>,
}

impl Caller {
    /// Known by its name alone.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), claims: Map::new() }
    }

    /// A claim; `a.b` is also `b` within `a`.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.claims.get(name) {
            return Some(value);
        }
        let mut parts = name.split('.');
        let first = self.claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part)).filter(|_| name.contains('.'))
    }

    /// What a header tells of a claim: text as it is, a list with commas (those within an element as `%2C`), anything else as
    /// JSON. `None`: there is no such claim.
    pub fn told(&self, name: &str) -> Option<String> {
        match self.claim(name)? {
            Value::Null => None,
            Value::Array(list) => {
                let told: Vec<String> = list.iter().map(|value| text(value).replace(',', "%2C")).collect();
                Some(told.join(","))
            }
            value => Some(text(value).into_owned()),
        }
    }

    fn has(&self, claim: &str, wanted: &[String]) -> bool {
        let is_wanted = |value: &str| wanted.iter().any(|wanted| wanted == value);
        match self.claim(claim) {
            None => false,
            Some(Value::Array(list)) => list.iter().any(|value| is_wanted(&text(value))),
            // RFC 6749 section 3.3: a list of words
            Some(Value::String(words)) if claim == "scope" => words.split(' ').any(is_wanted),
            Some(value) => is_wanted(&text(value)),
        }
    }
}

impl Who {
    /// Whether a caller who came by this one of the route's `ways` is meant, by name or by all the claims. `WAY/NAME` is a
    /// name of that way only: ways do not share their names.
    pub(super) fn has_caller(&self, caller: &Caller, way: &str, ways: &[String]) -> bool {
        let is_it = |known: &String| match known.split_once('/') {
            Some((of, name)) if ways.iter().any(|known| known == of) => of == way && name == caller.name,
            _ => *known == caller.name,
        };
        self.callers.iter().any(is_it)
            || (!self.claims.is_empty() && self.claims.iter().all(|(claim, wanted)| caller.has(claim, wanted)))
    }

    /// Whether this address is meant. One of IPv4 is the same in the clothes of IPv6 (RFC 4291 section 2.5.5.2).
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.iter().any(|network: &IpNet| network.contains(&address))
    }
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn caller(claims: Value) -> Caller {
        let Value::Object(claims) = claims else { panic!("{claims}") };
        Caller { name: "ann".into(), claims }
    }

    fn who(claims: &[(&str, &[&str])]) -> Who {
        let values = |values: &[&str]| values.iter().map(ToString::to_string).collect();
        Who { claims: claims.iter().map(|(name, list)| ((*name).to_owned(), values(list))).collect(), ..Who::default() }
    }

    #[test]
    fn claims_are_found_and_compared() {
        let ann =
            caller(json!({"role": ["ops", "dev"], "scope": "read write", "org": {"id": 7}, "a.b": "x", "ok": true}));
        for (wanted, is_meant) in [
            (who(&[("role", &["admin", "dev"])]), true),
            (who(&[("role", &["admin"])]), false),
            (who(&[("role", &["ops,dev"])]), false),
            (who(&[("scope", &["write"])]), true),
            (who(&[("scope", &["writ"])]), false),
            (who(&[("org.id", &["7"])]), true),
            (who(&[("a.b", &["x"]), ("ok", &["true"])]), true),
            (who(&[("a.b", &["x"]), ("ok", &["false"])]), false),
            (who(&[("a", &["x"])]), false),
            (who(&[]), false),
        ] {
            assert_eq!(wanted.has_caller(&ann, "people", &[]), is_meant, "{wanted:?}");
        }
        assert!(Who { callers: vec!["ann".into()], ..who(&[("no", &["x"])]) }.has_caller(&ann, "people", &[]));
    }

    #[test]
    fn a_name_can_be_of_one_way_only() {
        let ways = ["people".to_owned(), "partners".to_owned()];
        for (known, name, way, is_meant) in [
            ("ann", "ann", "people", true),
            ("ann", "ann", "partners", true),
            ("people/ann", "ann", "people", true),
            ("people/ann", "ann", "partners", false),
            ("people/ann", "people/ann", "partners", false),
            ("people/ann", "people/ann", "people", false),
            ("auth0/ann", "auth0/ann", "people", true),
        ] {
            let who = Who { callers: vec![known.to_owned()], ..Who::default() };
            assert_eq!(who.has_caller(&Caller::named(name), way, &ways), is_meant, "{known} {name} {way}");
        }
    }

    #[test]
    fn headers_tell_claims() {
        let ann = caller(json!({"sub": "ann", "roles": ["a", "b,c", 1], "n": 7, "no": null, "o": {"x": 1}}));
        let told = |name| ann.told(name);
        assert_eq!(told("sub").as_deref(), Some("ann"));
        assert_eq!(told("roles").as_deref(), Some("a,b%2Cc,1"));
        assert_eq!((told("n").as_deref(), told("no"), told("none")), (Some("7"), None, None));
        assert_eq!((told("o").as_deref(), told("o.x").as_deref()), (Some(r#"{"x":1}"#), Some("1")));
    }

    #[test]
    fn an_address_is_the_same_in_either_family() {
        let networks = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
        let who = Who { addresses: networks.to_vec(), ..Who::default() };
        for (address, is_meant) in
            [("10.9.8.7", true), ("::ffff:10.1.2.3", true), ("::1", true), ("11.0.0.1", false), ("::2", false)]
        {
            assert_eq!(who.has_address(address.parse().expect("an address")), is_meant, "{address}");
        }
    }
}
