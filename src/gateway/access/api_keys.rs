//! API keys: a header or a query parameter that only one caller knows.

use actix_web::http::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};
use url::form_urlencoded;

use super::{ApiKeys, Caller, Digest, KeyPlace};

/// What a key that is compared is.
pub(super) fn digest(key: &[u8]) -> Digest {
    Sha256::digest(key).into()
}

impl ApiKeys {
    /// Who brings a key. `None`: none was brought.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, headers: &HeaderMap, query: &str) -> Option<Result<Caller, &'static str>> {
        let (first, more) = match &self.place {
            KeyPlace::Header(name) => {
                let mut brought = headers.get_all(name.as_str());
                (brought.next().map(|value| digest(value.as_bytes())), brought.next().is_some())
            }
            KeyPlace::Query(name) => {
                let pairs = form_urlencoded::parse(query.as_bytes());
                let mut brought = pairs.filter(|(key, _)| key == name).map(|(_, value)| digest(value.as_bytes()));
                (brought.next(), brought.next().is_some())
            }
        };
        let brought = first?;
        if more {
            return Some(Err("the request brings more than one API key"));
        }
        Some(self.owner(&brought).map(Caller::named).ok_or("the API key is not known"))
    }

    /// Compares with every key, so that the time tells nothing.
    fn owner(&self, brought: &Digest) -> Option<&str> {
        let mut owner = None;
        for (digest, name) in &self.keys {
            let is_it: Choice = digest.ct_eq(brought);
            if is_it.into() {
                owner = Some(name.as_str());
            }
        }
        owner
    }

    /// RFC 9110 section 11.6.1 asks for a challenge beside 401; no scheme is registered for API keys.
    pub(super) fn challenge(&self) -> String {
        match &self.place {
            KeyPlace::Header(name) => format!("ApiKey in=\"header\", name=\"{name}\""),
            KeyPlace::Query(name) => format!("ApiKey in=\"query\", name=\"{}\"", name.replace(['"', '\\'], "")),
        }
    }
}
