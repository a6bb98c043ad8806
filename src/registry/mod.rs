//! WHO IS WHERE: the nodes of the cluster, and how a node makes itself known.
//!
//! May import: `shutdown`, `backoff`, `metrics`, `causes`, `json`.
//!
//! A backend publishes a [`Catalog`] on a watch channel: a slow reader sees the newest state, never a lost change, and
//! `None` means "not known yet", which is not "no nodes". [`Registry`] is the trait; `memory`, `local`, `etcd`, `consul`,
//! `kubernetes`, `mdns` and `static_file` are its backends; `own` keeps the nodes of this process for those two that others
//! write; `remembered` is the catalog on disk; `http` makes the clients of two of them; `key` is the codec of the originals' keys,
//! `go_micro` that of Go Micro's records.

mod catalog;
mod consul;
mod etcd;
pub mod go_micro;
mod http;
mod key;
mod kubernetes;
mod local;
mod malformed;
mod mdns;
pub mod memory;
mod node;
mod own;
mod remembered;
mod static_file;

pub use catalog::{Catalog, Publisher};
pub use consul::ConsulSettings;
pub use go_micro::hearer::Hearer;
pub use key::KeyError;
pub use kubernetes::KubernetesSettings;
pub use node::{HostPort, Node, NodeId, NodeMeta, NodePort, NodeState, Origin, RpcProtocol};
pub use remembered::Remember;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// What readers follow: `None` until the first read of the backend succeeded.
pub type CatalogWatch = watch::Receiver<Option<Arc<Catalog>>>;

/// The same of those who hear topics by Go Micro's HTTP broker.
pub type HearersWatch = watch::Receiver<Option<Arc<Vec<Hearer>>>>;

/// A place where nodes make themselves known and find each other.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// The word that `--registry` takes for it.
    fn kind(&self) -> &'static str;

    /// Follows the catalog.
    fn catalog(&self) -> CatalogWatch;

    /// Why the backing server cannot be used right now, where that is known.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Makes a node visible. Resolves once every other node can see it. From then on the backend keeps it visible by
    /// itself, whatever happens to the backing server, until [`Registry::deregister`]. In a process that began without the
    /// backing server, on a catalog from disk, it resolves at once, and the node is made visible when the server is back.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] when a live process holds the same id; [`RegistryError::Unavailable`] when the backing
    /// server cannot be reached.
    async fn register(&self, node: Node) -> Result<(), RegistryError>;

    /// Takes a node of this process out: marks it draining, so that a reader acts at once, then removes it.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when the backing server cannot be reached; the node then goes with its lease.
    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError>;

    /// Takes any node, also another process's (and an original's), out of rotation, or puts it back. The mark goes when
    /// the node goes.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when no such node is there; [`RegistryError::Unavailable`].
    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError>;

    /// Follows who hears topics by Go Micro's HTTP broker; `None`: this registry has no place for them.
    fn hearers(&self) -> Option<HearersWatch> {
        None
    }

    /// Tells that a process hears a topic, and keeps it told until [`Registry::unhear`].
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when the backing server cannot be reached; [`RegistryError::Setting`] where
    /// [`Registry::hearers`] is `None`.
    async fn hear(&self, hearer: Hearer) -> Result<(), RegistryError> {
        let reason = format!("`{}` has no place for who hears `{}`; use `etcd`", self.kind(), hearer.topic);
        Err(RegistryError::Setting { setting: "kind", reason })
    }

    /// Takes it back, by the hearer's id. One that is not there is no error.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`]; it then goes with its lease.
    async fn unhear(&self, _id: &str) -> Result<(), RegistryError> {
        Ok(())
    }
}

/// Why a registry could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another live process is registered under the same id.
    #[error("node `{0}` is already registered by a live process; choose other ports")]
    Taken(NodeId),
    /// No such node.
    #[error("no node `{0}` is registered")]
    Unknown(NodeId),
    /// The backing server or folder cannot be used now; it may be later.
    #[error("registry `{kind}` at `{address}` is unavailable")]
    Unavailable {
        /// The backend's word.
        kind: &'static str,
        /// Where it was looked for.
        address: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting cannot work.
    #[error("registry setting `{setting}`: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
}

/// How to find and use a registry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which backend.
    pub backend: Backend,
    /// What node keys begin with: `goms`, or `go-ms` for the older system.
    pub namespace: String,
    /// How long a node that stopped renewing stays visible (`--register-ttl`).
    pub register_ttl: Duration,
    /// How often a node renews (`--register-interval`).
    pub register_interval: Duration,
    /// How long nodes that are missing after the registry was away stay callable as `stale` (`--registry-grace`).
    pub grace: Duration,
    /// In which form nodes of this process stand in etcd (`--registry-format`); both are read.
    pub format: Format,
    /// Whether the catalog of a server is kept on disk, for a start without that server.
    pub remember: Option<Remember>,
}

/// The form in which a node is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As the originals do, with metadata beside it.
    #[default]
    Goms,
    /// As nodes of Go Micro do, which so find it.
    GoMicro,
}

impl Settings {
    /// What a node is called where it is written down.
    #[must_use]
    pub fn node_name(&self, id: &NodeId) -> String {
        match (self.format, &self.backend) {
            (Format::GoMicro, Backend::Etcd(_)) => go_micro::node_id(id),
            _ => id.key(&self.namespace),
        }
    }

    /// The name under which a service is written down.
    #[must_use]
    pub fn service_name(&self, service: &str) -> String {
        match (self.format, &self.backend) {
            (Format::GoMicro, Backend::Etcd(_)) => go_micro::full_name(service),
            _ => service.to_owned(),
        }
    }
}

/// A backend and what it alone needs.
#[derive(Clone, Debug)]
pub enum Backend {
    /// Inside this process.
    Memory,
    /// Files under `<dir>/<namespace>`, for the processes of one user on one machine.
    Local {
        /// The runtime folder (`--runtime-dir`).
        dir: PathBuf,
    },
    /// etcd v3.
    Etcd(EtcdSettings),
    /// A Consul agent.
    Consul(ConsulSettings),
    /// Kubernetes' EndpointSlices.
    Kubernetes(KubernetesSettings),
    /// Multicast DNS, for one network.
    Mdns,
    /// A file that someone else writes.
    Static {
        /// YAML or JSON.
        file: PathBuf,
    },
}

impl Backend {
    /// The word that `--registry` takes for it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Local { .. } => "local",
            Self::Etcd(_) => "etcd",
            Self::Consul(_) => "consul",
            Self::Kubernetes(_) => "kubernetes",
            Self::Mdns => "mdns",
            Self::Static { .. } => "static",
        }
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Memory | Self::Mdns => String::new(),
            Self::Local { dir } => dir.display().to_string(),
            Self::Etcd(etcd) => etcd.endpoints.join(","),
            Self::Consul(consul) => consul.address.clone(),
            Self::Kubernetes(kubernetes) => kubernetes.address.clone(),
            Self::Static { file } => file.display().to_string(),
        }
    }
}

/// How to reach etcd.
#[derive(Clone, Debug, Default)]
pub struct EtcdSettings {
    /// `host:port`, with or without `http://` or `https://`; at least one.
    pub endpoints: Vec<String>,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// A CA certificate (PEM file) that vouches for the server; setting it, or an `https://` endpoint, turns TLS on.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key (PEM files) for mutual TLS.
    pub identity_files: Option<(PathBuf, PathBuf)>,
}

/// Opens the registry that the settings name. Returns at once: it does not wait for the backing server, whose catalog
/// stays `None` until it is known. Background tasks run until `shutdown` begins or the registry is dropped. Needs a
/// tokio runtime.
///
/// # Errors
/// [`RegistryError::Setting`] when a setting cannot work; [`RegistryError::Unavailable`] when the folder of the local
/// registry cannot be used. A server that is away is no error here.
pub fn open(settings: &Settings, shutdown: &Shutdown, metrics: &Metrics) -> Result<Arc<dyn Registry>, RegistryError> {
    check_namespace(&settings.namespace)?;
    Ok(match &settings.backend {
        Backend::Memory => memory::Memory::new(),
        Backend::Local { dir } => local::Local::open(dir, &settings.namespace, shutdown, metrics)?,
        Backend::Etcd(etcd) => etcd::Etcd::open(settings, etcd, shutdown, metrics)?,
        Backend::Consul(consul) => consul::Consul::open(settings, consul, shutdown, metrics)?,
        Backend::Kubernetes(kubernetes) => kubernetes::Kubernetes::open(settings, kubernetes, shutdown, metrics)?,
        Backend::Mdns => mdns::Mdns::open(settings, shutdown, metrics)?,
        Backend::Static { file } => static_file::StaticFile::open(file, shutdown)?,
    })
}

/// A namespace is the first field of a key and a folder's name.
fn check_namespace(namespace: &str) -> Result<(), RegistryError> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
    if !namespace.is_empty() && !namespace.starts_with('.') && namespace.chars().all(fits) {
        return Ok(());
    }
    Err(RegistryError::Setting {
        setting: "namespace",
        reason: format!("`{namespace}` cannot begin a key; use letters, digits, `-` and `.`"),
    })
}

/// What no backend may write: a Go node that reads a key with too few fields dies, and one with too many is misread.
fn check_service(id: &NodeId) -> Result<(), RegistryError> {
    let bad = |letter: char| letter == '_' || letter == '/' || letter.is_control() || letter.is_whitespace();
    if !id.service.is_empty() && !id.service.starts_with('.') && !id.service.contains(bad) {
        return Ok(());
    }
    Err(RegistryError::Setting {
        setting: "service",
        reason: format!("`{}` cannot be part of a key; choose a name without `_`, `/` and spaces", id.service),
    })
}

/// The address that other nodes should call this machine by: the local address of a UDP socket "connected" to a public
/// address, which sends nothing, as the originals do; 127.0.0.1 when there is no route.
#[must_use]
pub fn own_ip() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
        // 192.0.2.1 is TEST-NET-1 (RFC 5737): routed like any public address, never answered.
        socket.connect(("192.0.2.1", 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_key_are_refused() {
        let id = |service: &str| {
            let address = HostPort::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
            NodeId { service: service.to_owned(), rpc: address, http: address }
        };
        for good in ["user", "traceConsumer", "go-micro.api", "\u{7528}\u{6237}"] {
            assert!(check_service(&id(good)).is_ok(), "{good}");
        }
        for bad in ["", "a_b", "a/b", "../x", "a b", "a\n"] {
            assert!(check_service(&id(bad)).is_err(), "{bad}");
        }
        assert!(check_namespace("goms").is_ok() && check_namespace("go-ms").is_ok());
        for bad in ["", "a_b", "..", "a/b"] {
            assert!(check_namespace(bad).is_err(), "{bad}");
        }
    }
}
