//! Addresses of servers, checked as far as one can without asking them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use url::{Host, Url};

/// Whether and where spans of other programs are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    #[default]
    Off,
    /// Here.
    At {
        /// `None`: where the other ports bind.
        ip: Option<IpAddr>,
        /// `None`: the protocol's own; 0: any free one.
        port: Option<u16>,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => out.write_str("off"),
            Self::At { ip: None, port: None } => out.write_str("on"),
            Self::At { ip: None, port: Some(port) } => port.fmt(out),
            Self::At { ip: Some(ip), port: None } => ip.fmt(out),
            Self::At { ip: Some(ip), port: Some(port) } => SocketAddr::new(*ip, *port).fmt(out),
        }
    }
}

/// `off`, `on`, a port, an IP or both: `4318`, `127.0.0.1:4318`.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    let at = |ip, port| Ok(Listen::At { ip, port });
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    match text {
        "off" | "false" => Ok(Listen::Off),
        "on" | "true" => at(None, None),
        "localhost" => at(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), None),
        _ if local.is_some() => at(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), local),
        _ => match (text.parse::<u16>(), text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(port), ..) => at(None, Some(port)),
            (_, Ok(address), _) => at(Some(address.ip()), Some(address.port())),
            (.., Ok(ip)) => at(Some(ip), None),
            _ => Err(format!(
                "`{}` is no place to listen; write `on`, `off`, a port, or for example `127.0.0.1:4318`",
                redacted(text)
            )),
        },
    }
}

/// Splits a list of etcd endpoints at `,` or the originals' `|`.
pub(super) fn etcd_list(text: &str) -> Result<Arc<[String]>, String> {
    text.split([',', '|'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(etcd)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|endpoints| match endpoints.is_empty() {
            true => Err("names no address; write for example `127.0.0.1:2379`".to_owned()),
            false => Ok(endpoints.into()),
        })
}

/// The same of any registry: also the file of a static one, which must look like a path.
pub(super) fn registry_list(text: &str) -> Result<Arc<[String]>, String> {
    if is_path(text) { Ok([text.to_owned()].into()) } else { etcd_list(text) }
}

/// Whether it can only be a file: it has an ending of YAML or JSON, or a `/` and no scheme.
pub(super) fn is_path(text: &str) -> bool {
    let ending = [".yml", ".yaml", ".json"].iter().any(|ending| text.ends_with(ending));
    !text.contains("://") && (ending || text.contains('/'))
}

/// `host:port`, with or without `http://` or `https://`.
pub(super) fn etcd(text: &str) -> Result<String, String> {
    let shown = redacted(text);
    let bad = |why: &str| format!("`{shown}` is no address: {why}; write for example `127.0.0.1:2379`");
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("only `http://` and `https://` may stand before it"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(bad("only host and port are wanted"));
    }
    // Url drops a scheme's default port, so look at the text.
    let authority = full.split_once("://").map_or("", |(_, rest)| rest).trim_end_matches('/');
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(bad("it has no port")),
    }
}

/// `amqp://user:password@host:port/vhost`. A path of `/` alone means the default vhost, as in the originals.
pub(super) fn amqp(text: &str) -> Result<String, String> {
    let shown = redacted(text);
    let bad = |why: &str| {
        format!("`{shown}` is no RabbitMQ address: {why}; write for example `amqp://guest:guest@127.0.0.1:5672`")
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(bad("it must begin with `amqp://` or `amqps://`"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("it has no host"));
    }
    let url = if url.path() == "/" && url.query().is_none() { text.trim_end_matches('/') } else { text };
    match url.parse::<lapin::uri::AMQPUri>() {
        Ok(_) => Ok(url.to_owned()),
        Err(error) => Err(bad(&error)),
    }
}

/// Splits a list of Elasticsearch's addresses at `,`. Where credentials stand in it, a `,` is only the end of an address
/// when a scheme follows: a password may hold one.
pub(super) fn elasticsearch_list(text: &str) -> Result<Vec<String>, String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        match parts.last_mut() {
            Some(last) if text.contains('@') && !part.contains("://") => *last = format!("{last},{part}"),
            _ => parts.push(part.to_owned()),
        }
    }
    parts.iter().map(|part| elasticsearch(part.trim())).collect()
}

/// `http://host:port`, or `host:port`.
pub(super) fn elasticsearch(text: &str) -> Result<String, String> {
    let shown = redacted(text);
    let bad =
        |why: &str| format!("`{shown}` is no Elasticsearch address: {why}; write for example `http://127.0.0.1:9200`");
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it must begin with `http://` or `https://`"));
    }
    match url.host() {
        Some(Host::Domain("")) | None => return Err(bad("it has no host")),
        Some(_) => {}
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("only scheme, host, port and a path are wanted"));
    }
    Ok(full.trim_end_matches('/').to_owned())
}

/// `host:port` of `goms healthcheck`.
///
/// # Errors
/// What is wrong with it.
pub fn host_port(text: &str) -> Result<String, String> {
    match etcd(text) {
        Ok(address) if !address.contains("://") => Ok(address),
        _ => Err(format!("`{text}` is no address; write for example `127.0.0.1:8280`")),
    }
}

/// The `http://host:port` of a program behind `goms service --app`.
///
/// # Errors
/// What is wrong with it.
pub fn app_url(text: &str) -> Result<Url, String> {
    let bad =
        |why: &str| format!("`{text}` is no address of a program: {why}; write for example `http://127.0.0.1:5000`");
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    match (url.scheme(), url.host_str()) {
        ("http", Some(host)) if !host.is_empty() => Ok(url),
        ("https", _) => Err(bad("goms speaks plain `http://` to a program on its machine")),
        _ => Err(bad("it must begin with `http://`")),
    }
}

/// A path of a program's own.
///
/// # Errors
/// What is wrong with it.
pub fn own_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.chars().all(|letter| letter.is_ascii_graphic());
    if is_path { Ok(text.to_owned()) } else { Err(format!("`{text}` is no path; write for example `/openapi.json`")) }
}

/// The address with its password replaced, for messages and `config print`.
pub(super) fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // The last `@`, wherever it is: a password with an unescaped `/` or `@` must not show either.
    match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:redacted@{host}"),
            None => format!("{scheme}://{credentials}@{host}"),
        },
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_addresses() {
        for good in ["127.0.0.1:2379", "http://etcd-1:2379", "https://[::1]:2379", "localhost:80"] {
            assert_eq!(etcd(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", ":2379", "ftp://a:1", "a b:1", "a:1/x"]
        {
            assert!(etcd(bad).is_err(), "{bad}");
        }
        assert_eq!(etcd_list("a:1|b:2").as_deref(), Ok(&["a:1".to_owned(), "b:2".to_owned()][..]));
        assert_eq!(etcd_list("a:1,b:2").map(|list| list.len()), Ok(2));
        assert!(etcd_list("|").is_err());
        for file in ["nodes.yml", "./nodes", "/etc/goms/nodes.json"] {
            assert_eq!(registry_list(file).as_deref(), Ok(&[file.to_owned()][..]));
        }
        assert!(registry_list("nodes").is_err() && registry_list("http://a:1/x").is_err());
    }

    #[test]
    fn places_to_listen_are_read_as_they_are_shown() {
        for good in ["off", "on", "4318", "0", "127.0.0.1", "127.0.0.1:4318", "[::1]:0", "::1"] {
            assert_eq!(listen(good).map(|listen| listen.to_string()).as_deref(), Ok(good));
        }
        for (text, shown) in
            [("true", "on"), ("false", "off"), ("localhost:7", "127.0.0.1:7"), ("localhost", "127.0.0.1")]
        {
            assert_eq!(listen(text).map(|listen| listen.to_string()).as_deref(), Ok(shown));
        }
        for bad in ["", "yes", "70000", "-1", "host:4318", "127.0.0.1:", ":4318", "http://127.0.0.1:4318"] {
            assert!(listen(bad).expect_err(bad).contains("`127.0.0.1:4318`"), "{bad}");
        }
    }

    #[test]
    fn amqp_addresses() {
        assert_eq!(amqp("amqp://guest:guest@127.0.0.1:5672/").as_deref(), Ok("amqp://guest:guest@127.0.0.1:5672"));
        assert_eq!(amqp("amqps://h/%2f").as_deref(), Ok("amqps://h/%2f"));
        for bad in ["", "127.0.0.1:5672", "http://h", "amqp://", "amqp://h:99999"] {
            assert!(amqp(bad).is_err(), "{bad}");
        }
        let error = amqp("mqtt://user:secret@h").expect_err("not amqp");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn elasticsearch_addresses() {
        assert_eq!(elasticsearch("http://u:p@h:9200/").as_deref(), Ok("http://u:p@h:9200"));
        assert_eq!(elasticsearch("127.0.0.1:9200").as_deref(), Ok("http://127.0.0.1:9200"));
        for bad in ["", "http://", "amqp://h", "h:99999", "http://h/?a"] {
            assert!(elasticsearch(bad).is_err(), "{bad}");
        }
        for (text, expected) in [
            ("a:1, https://b:2", &["http://a:1", "https://b:2"][..]),
            ("http://u:p,q@a:1", &["http://u:p,q@a:1"]),
            ("http://u:p,q@a:1,http://u:p@b:2", &["http://u:p,q@a:1", "http://u:p@b:2"]),
        ] {
            assert_eq!(
                elasticsearch_list(text).as_deref(),
                Ok(&expected.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>()[..])
            );
        }
        assert!(elasticsearch_list("a:1,").is_err());
    }
}
