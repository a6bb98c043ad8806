//! What became of the documents of a bulk request.

use std::fmt;

use ::elasticsearch::http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::super::Outcome;
use super::access::is_denied;

/// What of an answer is read: the rest is ten times as much.
pub(super) const ANSWER_FIELDS: &str = "items.*.status,items.*.error";

/// The answer to a bulk request.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// One a document, in order.
    pub items: Vec<Entry>,
}

/// An item under the name of its action.
#[derive(Debug)]
pub(super) struct Entry(pub Item);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Only;
        impl<'de> Visitor<'de> for Only {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an action with its item")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let item = map.next_entry::<IgnoredAny, Item>()?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                item.map(|(_, item)| Entry(item)).ok_or_else(|| A::Error::custom("no action"))
            }
        }
        deserializer.deserialize_map(Only)
    }
}

/// What became of one document.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Item {
    /// Whether we may not write there.
    pub fn is_denied(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| is_denied(status, Some(&self.error)))
    }

    /// Why it was not stored.
    pub fn reason(&self) -> String {
        reason(&self.error)
    }

    /// Whose fault it is: the document's, or the server's for now.
    pub fn outcome(&self) -> Outcome {
        match self.status {
            200..=299 => Outcome::Stored,
            400 | 413 if !is_for_now(&self.error) => Outcome::Refused(reason(&self.error)),
            status => Outcome::Later(format!("{status} {}", reason(&self.error))),
        }
    }
}

/// Whether a 400 says nothing about the document.
pub(super) fn is_for_now(error: &Value) -> bool {
    let kinds = [
        "validation_exception",
        "index_closed_exception",
        "cluster_block_exception",
        // an index took the alias's name after the indices were looked at
        "invalid_alias_name_exception",
    ];
    // of `illegal_argument_exception`, which can be about a document, too
    let reasons = ["no write index is defined", "explicit index in bulk is not allowed"];
    let reason = error["reason"].as_str().unwrap_or_default();
    kinds.iter().any(|kind| error["type"] == *kind) || reasons.iter().any(|part| reason.contains(part))
}

/// `type: reason: inner reason` of an error that the server reports.
pub(super) fn reason(error: &Value) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut at = error;
    if let Some(text) = error.as_str() {
        return text.to_owned();
    }
    parts.extend(at["type"].as_str());
    // the chain is short; the bound is for an answer that is not from Elasticsearch
    for _ in 0..5 {
        parts.extend(at["reason"].as_str());
        at = &at["caused_by"];
    }
    // a search says there what its shards found
    parts.extend(error["root_cause"][0]["reason"].as_str().filter(|cause| !parts.contains(cause)));
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_outcome() {
        let outcome = |json: &str| serde_json::from_str::<Item>(json).expect("an item").outcome();
        assert_eq!(outcome(r#"{"status":201}"#), Outcome::Stored);
        assert_eq!(
            outcome(r#"{"status":400,"error":{"type":"mapper","reason":"bad","caused_by":{"reason":"why"}}}"#),
            Outcome::Refused("mapper: bad: why".to_owned())
        );
        let answer: Answer =
            serde_json::from_str(r#"{"items":[{"index":{"status":201}},{"create":{"_id":"7","status":429}}]}"#)
                .expect("an answer");
        let outcomes: Vec<Outcome> = answer.items.iter().map(|entry| entry.0.outcome()).collect();
        assert!(matches!(&outcomes[..], [Outcome::Stored, Outcome::Later(_)]), "{outcomes:?}");
        for status in [401, 403, 404, 409, 429, 500, 503] {
            assert!(matches!(outcome(&format!(r#"{{"status":{status}}}"#)), Outcome::Later(_)), "{status}");
        }
    }
}
