//! What a route asks of clients and does for them besides answering: the terms on which it is open.

use super::access::Access;
use super::rate::RateLimit;

/// The terms of a route; by default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// Who may.
    pub access: Access,
    /// How often.
    pub rates: Vec<RateLimit>,
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
        shown
    }
}
