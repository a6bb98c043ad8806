//! What an event of an original lacks.

use serde_json::value::RawValue;

use super::super::go_form::push_string;

/// Fields that an event lacked, as JSON to put behind its last one. A field that is there, even as `null`, stays.
#[derive(Default)]
pub(super) struct Missing(Vec<u8>);

impl Missing {
    pub fn text(&mut self, there: Option<&RawValue>, key: &str, value: String) -> String {
        if there.is_none() && !value.is_empty() {
            self.key(key);
            push_string(&mut self.0, &value);
        }
        value
    }

    pub fn number(&mut self, there: Option<&RawValue>, key: &str, value: impl std::fmt::Display) {
        if there.is_none() {
            self.key(key);
            self.0.extend_from_slice(value.to_string().as_bytes());
        }
    }

    fn key(&mut self, key: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// The event with them behind its last field.
    pub fn append_to(self, event: &RawValue) -> Result<Box<RawValue>, serde_json::Error> {
        if self.0.is_empty() {
            return Ok(event.to_owned());
        }
        // an object with at least one field, which ends with its `}`
        let mut whole = String::with_capacity(event.get().len() + self.0.len());
        whole.push_str(event.get());
        whole.pop();
        whole.push_str(&String::from_utf8_lossy(&self.0));
        whole.push('}');
        RawValue::from_string(whole)
    }
}
