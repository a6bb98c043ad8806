//! A message, and what every broker can carry of it.

use bytes::Bytes;

/// The longest body: NATS takes messages of 1 MiB with their headers.
pub const MOST_BYTES: usize = 1_000_000;
/// The longest topic or group; MQTT and AMQP take 255 bytes with what goms puts before it.
const MOST_NAME: usize = 150;
/// The headers of one message, names and values.
const MOST_HEADER_BYTES: usize = 16 << 10;

/// What is published and heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where to: parts of letters, digits, `-`, `_` and `/`, between dots.
    pub topic: String,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Any bytes; JSON where a service of goms is to hear it.
    pub body: Bytes,
}

/// Why a message cannot be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The topic or group would be something else at some broker.
    #[error(
        "`{0}` is no topic or group; use parts of letters, digits, `-`, `_` and `/` between dots, {MOST_NAME} bytes in all"
    )]
    Name(String),
    /// A header's name or value.
    #[error(
        "header `{0}` cannot be sent; names are lower-case letters, digits and `-`, values have no line breaks, all together {MOST_HEADER_BYTES} bytes"
    )]
    Header(String),
    /// The body.
    #[error("a message has at most {MOST_BYTES} bytes, this one has {0}; store what is larger, and send where it is")]
    Size(usize),
}

impl Message {
    /// A message without headers.
    #[must_use]
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), headers: Vec::new(), body: body.into() }
    }

    /// The first value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// That every broker can carry it.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn check(&self) -> Result<(), MessageError> {
        check_name(&self.topic)?;
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
        };
        let mut bytes = 0;
        for (name, value) in &self.headers {
            bytes += name.len() + value.len();
            if !is_name(name) || value.contains(char::is_control) || bytes > MOST_HEADER_BYTES {
                return Err(MessageError::Header(name.clone()));
            }
        }
        if self.body.len() > MOST_BYTES { Err(MessageError::Size(self.body.len())) } else { Ok(()) }
    }
}

/// That a topic or group is one at every broker: no wildcard, no empty part.
pub(super) fn check_name(name: &str) -> Result<(), MessageError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/.".contains(&byte);
    let good = name.len() <= MOST_NAME
        && name.bytes().all(fits)
        && !name.split('.').any(str::is_empty)
        && !name.starts_with('/')
        && !name.ends_with('/');
    if good { Ok(()) } else { Err(MessageError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_broker_carries_is_sent() {
        for good in ["user", "go.micro.topic.user-2", "a/b_c"] {
            assert_eq!(Message::new(good, "x").check(), Ok(()), "{good}");
        }
        let long = "a".repeat(151);
        for bad in ["", ".a", "a..b", "a.", "a b", "a*", ">", "#", "+", "/a", "a/", "\u{e9}", &long] {
            assert!(matches!(Message::new(bad, "x").check(), Err(MessageError::Name(_))), "{bad}");
        }
        let with = |name: &str, value: &str| {
            let mut message = Message::new("a", "");
            message.headers.push((name.to_owned(), value.to_owned()));
            message.check()
        };
        assert_eq!(with("x-request-id", "\u{e9} any text"), Ok(()));
        for (name, value) in [("", "a"), ("A", "a"), ("a b", "a"), ("a", "a\nb"), ("a", &"v".repeat(20_000))] {
            assert!(matches!(with(name, value), Err(MessageError::Header(_))), "{name}");
        }
        assert_eq!(Message::new("a", vec![0; MOST_BYTES]).check(), Ok(()));
        assert_eq!(Message::new("a", vec![0; MOST_BYTES + 1]).check(), Err(MessageError::Size(MOST_BYTES + 1)));
    }
}
