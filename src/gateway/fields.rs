//! Header fields that a route sets, adds or takes away.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, VARY};

use crate::upstream::headers;

/// What becomes of header fields. Names are in lower case; each is valid in HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldRules {
    /// These go.
    pub remove: Vec<String>,
    /// These have this value, whatever came.
    pub set: Vec<(String, String)>,
    /// These come besides those that came.
    pub add: Vec<(String, String)>,
}

impl FieldRules {
    /// Whether they change anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for FieldRules {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let removed = self.remove.iter().map(|name| format!("remove {name}"));
        let set = self.set.iter().map(|(name, _)| format!("set {name}"));
        let added = self.add.iter().map(|(name, _)| format!("add {name}"));
        out.write_str(&removed.chain(set).chain(added).collect::<Vec<_>>().join(", "))
    }
}

/// Rules, ready to be used.
pub(super) struct InForce {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl InForce {
    /// `None`: nothing changes.
    pub fn new(rules: &FieldRules) -> Option<Self> {
        if rules.is_empty() {
            return None;
        }
        // the config has checked them
        let field = |(name, value): &(String, String)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::from_str(value).ok()?))
        };
        let names = rules.remove.iter();
        Some(Self {
            remove: names.filter_map(|name| HeaderName::try_from(name.as_str()).ok()).collect(),
            set: rules.set.iter().filter_map(field).collect(),
            add: rules.add.iter().filter_map(field).collect(),
        })
    }

    /// Changes an answer's.
    pub fn answer(&self, fields: &mut HeaderMap) {
        for name in self.remove.iter().chain(self.set.iter().map(|(name, _)| name)) {
            fields.remove(name);
        }
        for (name, value) in self.set.iter().chain(&self.add) {
            fields.append(name.clone(), value.clone());
        }
    }

    /// Changes those on their way to a service. A name that goes or is set goes in its spelling with `_` too, which some
    /// programs read as the same.
    pub fn request<'f>(&'f self, fields: &mut Vec<(&'f str, &'f [u8])>) {
        let goes = |name: &str| {
            let set = self.set.iter().map(|(name, _)| name);
            self.remove.iter().chain(set).any(|known| headers::same(known.as_str(), name.as_bytes()))
        };
        fields.retain(|(name, _)| !goes(name));
        let more = self.set.iter().chain(&self.add);
        fields.extend(more.map(|(name, value)| (name.as_str(), value.as_bytes())));
    }
}

/// Adds a name to `Vary` (RFC 9110 section 12.5.5), unless it says so already.
pub(super) fn vary(fields: &mut HeaderMap, name: &'static str) {
    let mut listed = fields.get_all(VARY).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_there = listed.any(|word| {
        let word = word.trim_ascii();
        word == b"*" || word.eq_ignore_ascii_case(name.as_bytes())
    });
    if !is_there {
        fields.append(VARY, HeaderValue::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_names_each_once() {
        let mut fields = HeaderMap::new();
        for name in ["origin", "accept-encoding", "origin"] {
            vary(&mut fields, name);
        }
        let all = |fields: &HeaderMap| {
            fields.get_all(VARY).map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(all(&fields), ["origin", "accept-encoding"]);
        for said in ["Accept, Origin", "*", "ORIGIN"] {
            let mut fields = HeaderMap::new();
            fields.insert(VARY, HeaderValue::from_static(said));
            vary(&mut fields, "origin");
            assert_eq!(all(&fields), [said]);
        }
    }
}
