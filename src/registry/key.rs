//! The originals' keys: `goms_<service>_<ip>:<rpcPort>_<ip>:<httpPort>`, value `0`.
//!
//! ```text
//! goms_user_192.168.8.98:9180_192.168.8.98:9080      a node
//! goms_traceConsumer_192.168.8.98:_192.168.8.98:     a consumer of the originals: no ports
//! ```
//! A Go node splits a key on `_`, takes fields 1 to 3 and panics when there are fewer than four; so a key of ours always
//! has four and a service name holds no `_`.

use std::net::IpAddr;

use super::node::{HostPort, NodeId};

/// Why a key is no node's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not begin with `<namespace>_`.
    #[error("key does not begin with `{0}_`")]
    Namespace(String),
    /// Fewer than four fields.
    #[error("key has {0} fields instead of 4")]
    Fields(usize),
    /// The service is empty.
    #[error("key names no service")]
    Service,
    /// An address is neither `ip:port` nor `ip:`.
    #[error("`{0}` is no `ip:port`")]
    Address(String),
}

impl NodeId {
    /// The node's key, which is also the `serviceId` of its trace events.
    #[must_use]
    pub fn key(&self, namespace: &str) -> String {
        format!("{namespace}_{}_{}_{}", self.service, self.rpc, self.http)
    }

    /// Reads a key. A fifth field and what follows is ignored, as the originals do.
    ///
    /// # Errors
    /// [`KeyError`] when the key is foreign or malformed.
    pub fn parse_key(namespace: &str, key: &str) -> Result<Self, KeyError> {
        let rest = key
            .strip_prefix(namespace)
            .and_then(|rest| rest.strip_prefix('_'))
            .ok_or_else(|| KeyError::Namespace(namespace.to_owned()))?;
        let mut fields = rest.split('_');
        match (fields.next(), fields.next(), fields.next()) {
            (Some(""), Some(_), Some(_)) => Err(KeyError::Service),
            (Some(service), Some(rpc), Some(http)) => {
                Ok(Self { service: service.to_owned(), rpc: parse_address(rpc)?, http: parse_address(http)? })
            }
            _ => Err(KeyError::Fields(1 + rest.split('_').count())),
        }
    }
}

fn parse_address(text: &str) -> Result<HostPort, KeyError> {
    let bad = || KeyError::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| bad())?;
    let port = match port {
        "" => None,
        digits => Some(digits.parse().map_err(|_| bad())?),
    };
    Ok(HostPort { ip, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_originals_survive_the_round_trip() {
        for key in [
            "goms_user_192.168.8.98:9180_192.168.8.98:9080",
            "goms_traceConsumer_127.0.0.1:_127.0.0.1:",
            "goms_user_[::1]:1_[::1]:2",
        ] {
            assert_eq!(NodeId::parse_key("goms", key).map(|id| id.key("goms")), Ok(key.to_owned()));
        }
        assert!(NodeId::parse_key("goms", "goms_user_1.1.1.1:1_1.1.1.1:2_extra").is_ok());
        assert!(NodeId::parse_key("go-ms", "go-ms_user_1.1.1.1:1_1.1.1.1:2").is_ok());
    }

    #[test]
    fn malformed_keys_say_why() {
        let parse = |key| NodeId::parse_key("goms", key);
        assert_eq!(parse("other_user_1.1.1.1:1_1.1.1.1:2"), Err(KeyError::Namespace("goms".into())));
        assert_eq!(parse("goms_user"), Err(KeyError::Fields(2)));
        assert_eq!(parse("goms_user_1.1.1.1:1"), Err(KeyError::Fields(3)));
        assert_eq!(parse("goms__1.1.1.1:1_1.1.1.1:2"), Err(KeyError::Service));
        assert_eq!(parse("goms_user_nonsense_1.1.1.1:2"), Err(KeyError::Address("nonsense".into())));
        assert_eq!(parse("goms_user_1.1.1.1:70000_1.1.1.1:2"), Err(KeyError::Address("1.1.1.1:70000".into())));
    }
}
