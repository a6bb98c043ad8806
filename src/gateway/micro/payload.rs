//! A request as the JSON object that a method gets: the query, with a body's members over it.

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::json;

/// How deep `a[b][c]` or `a.b.c` may go.
const MOST_DEPTH: usize = 16;

/// `cat=1&bar[one]=x&list[]=a` → `{"cat":1,"bar":{"one":"x"},"list":["a"]}`: what reads as JSON is what it says, anything
/// else is text.
///
/// # Errors
/// What of it cannot be read.
pub(super) fn of_query(query: &str) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        let value = json::value(text.as_bytes()).unwrap_or_else(|_| Value::String(text.into_owned()));
        let names: Vec<&str> = if name.contains('[') {
            name.split('[').map(|part| part.trim_end_matches(']')).collect()
        } else {
            name.split('.').collect()
        };
        if names.len() > MOST_DEPTH {
            return Err(format!("the parameter `{name:.40}` is more than {MOST_DEPTH} deep"));
        }
        put(&mut object, &names, value);
    }
    Ok(object)
}

fn put(object: &mut Map<String, Value>, names: &[&str], value: Value) {
    match names {
        [] => {}
        [name] => drop(object.insert((*name).to_owned(), value)),
        [name, ""] => match object.entry(*name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(value),
            other => *other = Value::Array(vec![value]),
        },
        [name, rest @ ..] => {
            let inner = object.entry(*name).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Puts one value over another (RFC 7396): members one by one, `null` takes one away, anything else replaces.
pub(super) fn merge(under: &mut Value, over: Value) {
    let Value::Object(over) = over else { return *under = over };
    if !under.is_object() {
        *under = Value::Object(Map::new());
    }
    let Value::Object(under) = under else { return };
    for (name, value) in over {
        if value.is_null() {
            under.remove(&name);
        } else {
            merge(under.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_is_an_object() {
        for (query, expected) in [
            ("", json!({})),
            ("name=huohuo", json!({"name": "huohuo"})),
            ("a=1&b=true&c=null&d=1x&e=%22q%22", json!({"a": 1, "b": true, "c": null, "d": "1x", "e": "q"})),
            ("bar%5Bone%5D%5Btwo%5D=2&bar[one][red]=112", json!({"bar": {"one": {"two": 2, "red": 112}}})),
            ("list[]=a&list[]=2", json!({"list": ["a", 2]})),
            ("user.name=x&user.age=7", json!({"user": {"name": "x", "age": 7}})),
            ("a=1&a[b]=2", json!({"a": {"b": 2}})),
            ("=x&y", json!({"": "x", "y": ""})),
        ] {
            assert_eq!(of_query(query).map(Value::Object), Ok(expected), "{query}");
        }
        assert!(of_query(&format!("a{}=1", "[b]".repeat(20))).is_err());
    }

    #[test]
    fn a_body_goes_over_it() {
        let mut value = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": 3});
        merge(&mut value, json!({"a": 2, "b": {"c": 3}, "e": null, "f": [1]}));
        assert_eq!(value, json!({"a": 2, "b": {"c": 3, "d": 2}, "f": [1]}));
        merge(&mut value, json!([1]));
        assert_eq!(value, json!([1]));
    }
}
