//! goms in front of a program in any language: guard, trace and forward every request to it.
//!
//! [`serve_program`] is the front, [`Program`](super::Program) watches (and, given a command, runs) what is behind it.

use std::net::TcpListener;
use std::time::Duration;

use super::program::Door;
use super::server::{Target, start};
use super::{Parts, Running, ServeError};

/// A program's address: `http://host:port`, maybe with a path that every request's path is put after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramUrl {
    /// The path without its last `/`; empty for none.
    prefix: String,
    host: String,
    port: u16,
}

/// Why a text is no program's address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no address of a program: {reason}; give it as `http://127.0.0.1:5000`")]
pub struct ProgramUrlError {
    url: String,
    reason: &'static str,
}

impl std::str::FromStr for ProgramUrl {
    type Err = ProgramUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason| ProgramUrlError { url: text.to_owned(), reason };
        let url = url::Url::parse(text).map_err(|_| bad("it cannot be read"))?;
        if url.scheme() != "http" {
            return Err(bad("it does not begin with `http://`"));
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it has more than host, port and path"));
        }
        let host = url.host_str().ok_or_else(|| bad("it has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or_else(|| bad("it has no port"))?;
        Ok(Self { prefix: url.path().trim_end_matches('/').to_owned(), host, port })
    }
}

impl ProgramUrl {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as one connects to them.
    pub(super) fn socket(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// `host:port`, as `Host` names it.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// What every request's path is put after.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl std::fmt::Display for ProgramUrl {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "http://{}{}", self.authority(), self.prefix)
    }
}

/// How long a program may take for an answer's head, unless told otherwise; six times a gateway's deadline of a try.
pub const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves a program on a bound listener: the guard, traces, metrics and limits of [`serve`](super::serve), and each
/// request streamed to where `door` leads (an address that stays, or [`Program::door`](super::Program::door)), its answer streamed back. The program never sees the call key; it gets `X-Request-Id`
/// and a `traceparent`. `timeout` is for the answer's head (504).
///
/// # Errors
/// [`ServeError`] when the listener cannot be used.
pub fn serve_program(
    listener: TcpListener,
    name: &str,
    door: impl Into<Door>,
    timeout: Duration,
    parts: Parts,
) -> Result<Running, ServeError> {
    start(listener, name, Target::Program(door.into(), timeout), parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_programs() {
        let parse = |text: &str| text.parse::<ProgramUrl>();
        let url = parse("http://127.0.0.1:5000").unwrap();
        assert_eq!((url.socket(), url.to_string().as_str()), (("127.0.0.1", 5000), "http://127.0.0.1:5000"));
        assert_eq!(parse("http://localhost/base/").unwrap().to_string(), "http://localhost:80/base");
        assert_eq!(parse("http://[::1]:7").unwrap().socket(), ("::1", 7));
        for bad in ["127.0.0.1:5000", "https://127.0.0.1:5000", "http://a:1/?q", "http://", "5000", "http://u@h:1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
