//! A part of somebody else's document, so that it can stand beside others: what it names gets its service's name before
//! it, what it names outside of itself is left out, and what OpenAPI 3.0 wrote in another way is written as 3.1 has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// What a document may name, and what is taken over of it.
const KINDS: [&str; 5] = ["schemas", "parameters", "requestBodies", "responses", "headers"];

/// Components of one service.
const MOST_COMPONENTS: usize = 1_000;

/// Under these keys stand values that are examples of something, in which a `$ref` is a word like any other.
const VALUES: [&str; 5] = ["example", "examples", "default", "enum", "const"];

/// Under these keys stand names that somebody chose.
const NAMES: [&str; 5] = ["properties", "patternProperties", "$defs", "dependentSchemas", "mapping"];

/// What names of a service's document become.
pub struct Import {
    prefix: String,
    /// Whether it is of OpenAPI 3.0.
    is_old: bool,
    /// `kind/name` of what it has.
    known: BTreeSet<String>,
}

impl Import {
    /// Of a service, with the components that its document has.
    pub fn new(service: &str, is_old: bool, components: &Value) -> Self {
        let mut known = BTreeSet::new();
        for kind in KINDS {
            let names = components.get(kind).and_then(Value::as_object);
            let names = names.into_iter().flat_map(Map::keys).filter(|name| is_name(name));
            known.extend(names.map(|name| format!("{kind}/{name}")).take(MOST_COMPONENTS));
        }
        Self { prefix: prefix(service), is_old, known }
    }

    /// The components, by kind and new name.
    pub fn components(&self, components: &Value) -> BTreeMap<String, BTreeMap<String, Value>> {
        let mut taken: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
        for known in &self.known {
            let Some((kind, name)) = known.split_once('/') else { continue };
            let Some(mut value) = components.get(kind).and_then(|of| of.get(name)).cloned() else { continue };
            self.mend(&mut value);
            taken.entry(kind.to_owned()).or_default().insert(self.name(name), value);
        }
        taken
    }

    /// What a component is called in the merged document.
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Rewrites a part of the document in place. It is as deep as a reader of JSON lets it be (128).
    pub fn mend(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.mend(item)),
            Value::Object(object) => self.mend_object(object),
            _ => {}
        }
    }

    fn mend_object(&self, object: &mut Map<String, Value>) {
        if let Some(Value::String(named)) = object.get("$ref") {
            match self.renamed(named) {
                Some(renamed) => drop(object.insert("$ref".to_owned(), renamed.into())),
                None => {
                    *object = Map::new();
                    object.insert("description".to_owned(), "described elsewhere, which is left out".into());
                    return;
                }
            }
        }
        if self.is_old {
            to_new(object);
        }
        for (key, value) in object.iter_mut() {
            match value {
                _ if VALUES.contains(&key.as_str()) => {}
                Value::Object(chosen) if key == "mapping" => self.mend_mapping(chosen),
                Value::Object(chosen) if NAMES.contains(&key.as_str()) => {
                    chosen.values_mut().for_each(|value| self.mend(value));
                }
                _ => self.mend(value),
            }
        }
    }

    /// `discriminator.mapping`: words, and which schema each means.
    fn mend_mapping(&self, mapping: &mut Map<String, Value>) {
        mapping.retain(|_, value| {
            let renamed = value.as_str().and_then(|named| match named.starts_with('#') {
                true => self.renamed(named),
                false => self.renamed(&format!("#/components/schemas/{named}")),
            });
            match renamed {
                Some(renamed) => {
                    *value = renamed.into();
                    true
                }
                None => false,
            }
        });
    }

    /// `None`: it is not in this document.
    fn renamed(&self, named: &str) -> Option<String> {
        let (kind, name) = named.strip_prefix("#/components/")?.split_once('/')?;
        self.known.contains(&format!("{kind}/{name}")).then(|| format!("#/components/{kind}/{}", self.name(name)))
    }
}

/// A service's name in those of components: another one for every service, and without a point of its own, which ends it.
/// `_` is what follows written otherwise: `my_shop.eu` becomes `my__shop_.eu`, and a space `_20_`.
fn prefix(service: &str) -> String {
    let mut prefix = String::with_capacity(service.len());
    for letter in service.chars() {
        match letter {
            '_' | '.' => prefix.extend(['_', letter]),
            _ if is_letter(letter) => prefix.push(letter),
            _ => prefix.push_str(&format!("_{:x}_", u32::from(letter))),
        }
    }
    prefix
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "._-".contains(letter)
}

/// Whether OpenAPI lets a component be called so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && name.chars().all(is_letter)
}

/// What OpenAPI 3.0 has in another form than JSON Schema: `nullable`, and limits that are not included.
fn to_new(object: &mut Map<String, Value>) {
    if object.remove("nullable") == Some(Value::Bool(true))
        && let Some(Value::String(kind)) = object.get("type")
    {
        let kinds = json!([kind, "null"]);
        object.insert("type".to_owned(), kinds);
    }
    for (limit, strict) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match object.get(strict) {
            Some(Value::Bool(true)) => {
                let value = object.remove(limit).unwrap_or_default();
                object.insert(strict.to_owned(), value);
            }
            Some(Value::Bool(false)) => drop(object.remove(strict)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_service_and_what_is_elsewhere_is_left_out() {
        let components = json!({"schemas": {
            "Tree": {"type": "object", "properties": {"left": {"$ref": "#/components/schemas/Tree"}, "$ref": {"type": "string"}}},
            "bad name": {},
        }, "securitySchemes": {"key": {}}});
        let import = Import::new("us er", false, &components);
        let taken = import.components(&components);
        let tree = &taken["schemas"]["us_20_er.Tree"];
        assert_eq!(tree["properties"]["left"]["$ref"], "#/components/schemas/us_20_er.Tree");
        assert_eq!(tree["properties"]["$ref"], json!({"type": "string"}), "a field's name is no reference");
        assert_eq!((taken.len(), taken["schemas"].len()), (1, 1));
        for elsewhere in ["http://evil/x.json", "#/components/schemas/None", "#/paths/~1a", "other.json#/a", "#"] {
            let mut value = json!({"a": [{"$ref": elsewhere, "type": "x"}], "example": {"$ref": elsewhere}});
            import.mend(&mut value);
            assert!(value["a"][0].get("$ref").is_none() && value["a"][0].get("type").is_none(), "{value}");
            assert_eq!(value["example"]["$ref"], elsewhere);
        }
        let mut chosen =
            json!({"discriminator": {"mapping": {"a": "#/components/schemas/Tree", "b": "Tree", "c": "x"}}});
        import.mend(&mut chosen);
        let mapping = &chosen["discriminator"]["mapping"];
        assert_eq!(
            mapping,
            &json!({"a": "#/components/schemas/us_20_er.Tree", "b": "#/components/schemas/us_20_er.Tree"})
        );
    }

    #[test]
    fn no_two_services_share_a_name() {
        let of = |service: &str, name: &str| Import::new(service, false, &Value::Null).name(name);
        assert_eq!(of("my-shop", "b.C"), "my-shop.b.C");
        assert_ne!(of("a", "b.C"), of("a.b", "C"));
        let services = ["a", "a.b", "a_.b", "a__b", "a_b", "a b", "a_20_b", "a__20_b", "a/b", "a.", "a_"];
        let names: BTreeSet<String> = services
            .iter()
            .flat_map(|service| ["C", "b.C", ".b.C", "_.b.C", "_b.C"].map(|name| of(service, name)))
            .collect();
        assert_eq!(names.len(), services.len() * 5, "{names:?}");
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
    }

    #[test]
    fn what_3_0_says_is_said_as_in_3_1() {
        let import = Import::new("a", true, &Value::Null);
        let mut value = json!({"schema": {"type": "string", "nullable": true}, "n": {"minimum": 1, "exclusiveMinimum": true},
                               "m": {"maximum": 1, "exclusiveMaximum": false}});
        import.mend(&mut value);
        assert_eq!(
            value,
            json!({"schema": {"type": ["string", "null"]}, "n": {"exclusiveMinimum": 1}, "m": {"maximum": 1}})
        );
    }
}
