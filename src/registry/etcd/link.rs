//! The way to etcd: one endpoint at a time, the next one after a failure. Every request has a time limit, and one
//! generation number tells all tasks that the connection they used is gone.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};
use url::Url;

use super::super::{EtcdSettings, RegistryError};

/// How long a request may take. An etcd that does not answer for this long is frozen, or has lost its majority.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a request may take in all, with its tries on other endpoints.
const CALL_BUDGET: Duration = Duration::from_secs(5);
/// HTTP/2 pings, which find a dead connection of a watch. etcd refuses more than one in 5 s (`grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// etcd's own port for clients.
const DEFAULT_PORT: u16 = 2379;

/// Why etcd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error("connection was given up")]
    Replaced,
    #[error("watch ended: {0}")]
    WatchEnded(String),
    /// In words of its own: the client's error prints its whole inside, and names no cause to follow.
    #[error("{}", in_words(.0))]
    Etcd(etcd_client::Error),
}

impl From<etcd_client::Error> for LinkError {
    fn from(error: etcd_client::Error) -> Self {
        Self::Etcd(error)
    }
}

/// What etcd says when it is the user that it does not take.
const NOT_ALLOWED: [&str; 4] =
    ["invalid user ID or password", "user name is empty", "permission denied", "user name not found"];

fn in_words(error: &etcd_client::Error) -> String {
    let (said, mut cause) = match error {
        etcd_client::Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        etcd_client::Error::TransportError(error) => (error.to_string(), error.source()),
        other => return other.to_string(),
    };
    if NOT_ALLOWED.iter().any(|words| said.contains(words)) {
        return format!("{said}; check `etcd.user` and `etcd.password`");
    }
    let mut deepest = None;
    while let Some(error) = cause {
        deepest = Some(error.to_string());
        cause = error.source();
    }
    match deepest {
        Some(cause) if !said.contains(&cause) => format!("{said}: {cause}"),
        _ => said,
    }
}

impl LinkError {
    /// Whether another try, perhaps at another endpoint, can help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Timeout | Self::Replaced | Self::WatchEnded(_) => true,
            Self::Etcd(etcd_client::Error::GRpcStatus(status)) => {
                // By number, since tonic is not a dependency of ours: cancelled, unknown, deadline exceeded,
                // internal, unavailable, unauthenticated (an expired token: connecting gets a new one).
                matches!(status.code() as i32, 1 | 2 | 4 | 13 | 14 | 16)
            }
            Self::Etcd(etcd_client::Error::InvalidArgs(_) | etcd_client::Error::LeaseKeepAliveError(_)) => false,
            Self::Etcd(_) => true,
        }
    }

    /// etcd answered that this user may not do that (by number: permission denied).
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Etcd(etcd_client::Error::GRpcStatus(status)) if status.code() as i32 == 7)
    }

    /// etcd answered that it knows no such lease.
    pub(super) fn is_lease_gone(&self) -> bool {
        match self {
            Self::Etcd(etcd_client::Error::GRpcStatus(status)) => status.message().contains("lease not found"),
            Self::Etcd(etcd_client::Error::LeaseKeepAliveError(reason)) => reason == "lease not found",
            _ => false,
        }
    }
}

/// A connection that is made when it is needed.
pub(super) struct Link {
    endpoints: Vec<String>,
    options: ConnectOptions,
    state: Mutex<State>,
    /// Counts the connections that were given up.
    generation: watch::Sender<u64>,
}

struct State {
    client: Option<Client>,
    endpoint: usize,
}

impl Link {
    pub(super) fn new(settings: &EtcdSettings) -> Result<Self, RegistryError> {
        let (endpoints, tls) = endpoints(settings)?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(REQUEST_TIMEOUT)
            .with_tcp_keepalive(PING_INTERVAL)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        if let Some((user, password)) = &settings.credentials {
            options = options.with_user(user, password);
        }
        if tls {
            options = options.with_tls(tls_options(settings)?);
        }
        let state = Mutex::new(State { client: None, endpoint: 0 });
        Ok(Self { endpoints, options, state, generation: watch::Sender::new(0) })
    }

    /// All endpoints, for log lines and errors.
    pub(super) fn address(&self) -> String {
        self.endpoints.join(",")
    }

    /// Follows the generation.
    pub(super) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The client in use, and its generation.
    pub(super) async fn client(&self) -> Result<(Client, u64), LinkError> {
        let mut state = self.state.lock().await;
        let generation = *self.generation.borrow();
        if let Some(client) = &state.client {
            return Ok((client.clone(), generation));
        }
        let endpoint = &self.endpoints[state.endpoint % self.endpoints.len()];
        // Connects to nothing yet, unless there is a password to be exchanged for a token.
        let connected = timeout(REQUEST_TIMEOUT, Client::connect([endpoint], Some(self.options.clone()))).await;
        match connected {
            Ok(Ok(client)) => {
                state.client = Some(client.clone());
                Ok((client, generation))
            }
            Ok(Err(error)) => {
                state.endpoint += 1;
                Err(error.into())
            }
            Err(_) => {
                state.endpoint += 1;
                Err(LinkError::Timeout)
            }
        }
    }

    /// Gives the connection of that generation up; the next request goes to the next endpoint.
    pub(super) async fn failed(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if *self.generation.borrow() == generation {
            state.client = None;
            state.endpoint += 1;
            self.generation.send_replace(generation + 1);
        }
    }

    /// Sends a request that may be sent twice, where needed to each endpoint.
    pub(super) async fn call<T, F, R>(&self, request: F) -> Result<T, LinkError>
    where
        F: Fn(Client) -> R + Send + Sync,
        R: Future<Output = Result<T, etcd_client::Error>> + Send,
        T: Send,
    {
        let deadline = Instant::now() + CALL_BUDGET;
        let mut tries = self.endpoints.len() + 1;
        loop {
            let result = self.call_once(&request).await;
            tries -= 1;
            match result {
                Err(error) if error.is_transient() && tries > 0 && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    async fn call_once<T, F, R>(&self, request: &F) -> Result<T, LinkError>
    where
        F: Fn(Client) -> R + Send + Sync,
        R: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let (client, generation) = self.client().await?;
        let result = match timeout(REQUEST_TIMEOUT, request(client)).await {
            Ok(result) => result.map_err(LinkError::from),
            Err(_) => Err(LinkError::Timeout),
        };
        if result.as_ref().is_err_and(LinkError::is_transient) {
            self.failed(generation).await;
        }
        result
    }
}

/// Endpoints as URLs, and whether they use TLS.
fn endpoints(settings: &EtcdSettings) -> Result<(Vec<String>, bool), RegistryError> {
    let bad = |reason: String| RegistryError::Setting { setting: "endpoints", reason };
    let named: Vec<&str> = settings
        .endpoints
        .iter()
        .flat_map(|text| text.split(['|', ',']))
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    if named.is_empty() {
        return Err(bad("no address of etcd is given; name at least one `host:port`".to_owned()));
    }
    let plain = named.iter().find(|text| text.starts_with("http://"));
    let tls = settings.ca_file.is_some()
        || settings.identity_files.is_some()
        || named.iter().any(|text| text.starts_with("https://"));
    if let (true, Some(plain)) = (tls, plain) {
        return Err(bad(format!(
            "`{plain}` is without TLS, but TLS is asked for; write `https://` or only `host:port`"
        )));
    }
    let scheme = if tls { "https" } else { "http" };
    let mut urls = Vec::new();
    for text in named {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|error| bad(format!("`{text}`: {error}")))?;
        let host = url.host_str().filter(|_| url.path() == "/" && url.username().is_empty() && url.query().is_none());
        let host = host.ok_or_else(|| bad(format!("`{text}` is not `host:port`")))?;
        // The parser drops a port that is the scheme's own.
        let port = url.port().or_else(|| rest.contains(&format!("{host}:")).then(|| url.port_or_known_default())?);
        urls.push(format!("{scheme}://{host}:{}", port.unwrap_or(DEFAULT_PORT)));
    }
    Ok((urls, tls))
}

fn tls_options(settings: &EtcdSettings) -> Result<TlsOptions, RegistryError> {
    let read = |setting: &'static str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| RegistryError::Setting {
            setting,
            reason: format!("cannot read `{}`: {error}", path.display()),
        })
    };
    let mut tls = TlsOptions::new();
    tls = match &settings.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read("ca_file", path)?)),
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &settings.identity_files {
        let identity = Identity::from_pem(read("identity_files", certificate)?, read("identity_files", key)?);
        tls = tls.identity(identity);
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str], ca: bool) -> Result<(Vec<String>, bool), RegistryError> {
        endpoints(&EtcdSettings {
            endpoints: texts.iter().map(|text| (*text).to_owned()).collect(),
            ca_file: ca.then(|| "ca.pem".into()),
            ..EtcdSettings::default()
        })
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        let (found, tls) = urls(&["127.0.0.1:2379|http://b:1", "c:80, [::1]:2", "d"], false).expect("good");
        let expected = ["http://127.0.0.1:2379", "http://b:1", "http://c:80", "http://[::1]:2", "http://d:2379"];
        assert_eq!((found, tls), (expected.map(str::to_owned).to_vec(), false));
        assert_eq!(urls(&["a:1"], true).expect("good"), (vec!["https://a:1".to_owned()], true));
        assert_eq!(urls(&["https://a:443|b:2"], false).expect("good").0, ["https://a:443", "https://b:2"]);
    }

    #[test]
    fn addresses_that_cannot_work_say_why() {
        for (texts, ca) in
            [(&[][..], false), (&["|"], false), (&["http://a:1"], true), (&["http://a:1|https://b:1"], false)]
        {
            assert!(urls(texts, ca).is_err(), "{texts:?}");
        }
        for bad in ["a:b", "a:1/path", "a:70000", "user@a:1"] {
            let error = urls(&[bad], false).expect_err("bad").to_string();
            assert!(error.contains(bad), "{error}");
        }
    }
}
