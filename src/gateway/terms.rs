//! What a route asks of clients and does for them besides answering: the terms on which it is open.

use super::access::Access;
use super::compress::Compression;
use super::cors::Cors;
use super::faults::Faults;
use super::fields::FieldRules;
use super::rate::RateLimit;

/// The terms of a route; by default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// Who may.
    pub access: Access,
    /// How often.
    pub rates: Vec<RateLimit>,
    /// What pages of other origins may do; `None`: what the service says.
    pub cors: Option<Cors>,
    /// What becomes of header fields on their way to the service.
    pub request_fields: FieldRules,
    /// What becomes of those of every answer, the gateway's own too.
    pub answer_fields: FieldRules,
    /// How many bytes a body may have, also one that passes untouched; `None`: [`super::Limits::body_bytes`], and no limit
    /// for what passes untouched.
    pub body_bytes: Option<usize>,
    /// Which answers are compressed; `None`: none.
    pub compression: Option<Compression>,
    /// What goes wrong on purpose, and for whom; `None`: nothing.
    pub faults: Option<Faults>,
}

impl Terms {
    /// What is asked and done, each with its key in the config, for people.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let mut shown = Vec::new();
        if !self.access.ways.is_empty() {
            shown.push(("auth", self.access.ways.join(" or ")));
        }
        for (key, who) in [("allow", &self.access.allow), ("deny", &self.access.deny)] {
            shown.extend(who.as_ref().map(|who| (key, who.to_string())));
        }
        shown.extend(self.rates.iter().map(|rate| ("rateLimit", rate.to_string())));
        if let Some(cors) = &self.cors {
            let origins: Vec<String> = cors.origins.iter().map(ToString::to_string).collect();
            shown.push(("cors", origins.join(", ")));
        }
        for (key, rules) in [("requestHeaders", &self.request_fields), ("responseHeaders", &self.answer_fields)] {
            if !rules.is_empty() {
                shown.push((key, rules.to_string()));
            }
        }
        if let Some(compression) = &self.compression {
            let codings: Vec<&str> = compression.codings.iter().map(|coding| coding.name()).collect();
            shown.push(("compress", codings.join(", ")));
        }
        shown.extend(self.faults.as_ref().map(|faults| ("faults", faults.to_string())));
        shown.extend(self.body_bytes.map(|bytes| ("bodyBytes", bytes.to_string())));
        shown
    }
}
