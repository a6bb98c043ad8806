//! What one config says otherwise than another, key by key, as both are in force.

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use super::Config;

/// A key whose value is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Where in the YAML: `upstreams.user.timeout`.
    pub path: String,
    /// What it was; `None`: it was not there.
    pub old: Option<String>,
    /// What it is; `None`: it is not there any more.
    pub new: Option<String>,
    /// Whether a running process takes it over only when it starts anew.
    pub needs_restart: bool,
}

impl Config {
    /// What `new` says otherwise, in the order of the keys. Of secrets only the call keys are compared.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        flatten("", &self.mapping(), &mut before);
        flatten("", &new.mapping(), &mut after);
        let restart = self.differences_that_need_a_restart(new);
        // an entry may say more behind the key
        let fixed: Vec<&str> = restart.iter().filter_map(|entry| entry.split(' ').next()).collect();
        let is_fixed = |path: &str| {
            let under = |key: &&str| {
                path.strip_prefix(*key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            fixed.iter().any(under)
        };
        let value = |of: &[(String, String)], path: &str| {
            of.iter().find(|(known, _)| known == path).map(|(_, value)| value.clone())
        };
        let mut changes: Vec<Change> = Vec::new();
        let gone = before.iter().filter(|(path, _)| value(&after, path).is_none());
        for (path, _) in gone.chain(&after) {
            let (old, new) = (value(&before, path), value(&after, path));
            if old != new {
                changes.push(Change { path: path.clone(), old, new, needs_restart: is_fixed(path) });
            }
        }
        if self.gateway.call_keys != new.gateway.call_keys
            && !changes.iter().any(|change| change.path.starts_with("callServiceKey"))
        {
            let hidden = || Some("another, hidden".to_owned());
            let path = "callServiceKey".to_owned();
            changes.push(Change { path, old: hidden(), new: hidden(), needs_restart: false });
        }
        changes.sort_by(|one, two| one.path.cmp(&two.path));
        changes
    }
}

/// Every value with its path; an empty mapping and a list of plain values are values.
fn flatten(path: &str, mapping: &Mapping, into: &mut Vec<(String, String)>) {
    for (key, value) in mapping {
        let key = key.as_str().map_or_else(|| one_line(key), str::to_owned);
        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
        flatten_value(path, value, into);
    }
}

fn flatten_value(path: String, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Mapping(inner) if !inner.is_empty() => flatten(&path, inner, into),
        Value::Sequence(list) if list.iter().any(Value::is_mapping) => {
            for (index, value) in list.iter().enumerate() {
                // a route that was put before others changes none of them
                let name = value.get("name").and_then(Value::as_str);
                let place = name.map_or_else(|| format!("{path}[{index}]"), |name| format!("{path}[{name}]"));
                flatten_value(place, value, into);
            }
        }
        value => into.push((path, one_line(value))),
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Sequence(list) => format!("[{}]", list.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        Value::Mapping(_) => "{}".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Null => "none".to_owned(),
        Value::Tagged(tagged) => one_line(&tagged.value),
    }
}
