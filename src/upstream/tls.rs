//! How a service is called by TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::registry::{Node, NodePort};
use crate::trust::{self, Roots, TrustError};

/// Files and names, as the config gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// PEM file of who vouches for the service; `None`: whom this system trusts.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate with which goms calls, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// For whom the service's certificate must be; `None`: the host that is called, of a node its address.
    pub server_name: Option<String>,
}

/// How a port of a node is called: by TLS with `own`, which is its service's, or else with `told` where the node says that it takes
/// TLS. `None`: plainly.
///
/// # Errors
/// It takes TLS, and nobody said whom to trust.
pub(super) fn tls_of<'t>(
    node: &Node,
    port: NodePort,
    (own, told): (Option<&'t ClientTls>, Option<&'t ClientTls>),
) -> io::Result<Option<&'t ClientTls>> {
    let is_told = || node.takes_tls(port);
    match (&node.origin, own, told) {
        (Some(origin), own, _) => Ok(own.filter(|_| origin.tls)),
        (None, Some(own), _) => Ok(Some(own)),
        (None, None, Some(told)) => Ok(is_told().then_some(told)),
        (None, None, None) if is_told() => {
            let why = "it takes TLS, and neither `tls` of its upstream nor `serviceTls.call` says who vouches for it";
            Err(io::Error::new(io::ErrorKind::Unsupported, why))
        }
        (None, None, None) => Ok(None),
    }
}

/// The same, read.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// What was read.
    pub files: ClientTlsFiles,
    name: Option<ServerName<'static>>,
    pub(super) config: Arc<ClientConfig>,
    /// For connections of HTTP/2.
    pub(super) rpc: Arc<ClientConfig>,
}

/// Equal as it was given; what the files held may differ.
impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Eq for ClientTls {}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TrustError`] for one that cannot be used.
    pub fn load(files: ClientTlsFiles) -> Result<Self, TrustError> {
        let roots = files.ca.as_deref().map_or(Roots::System, Roots::Only);
        let identity = files.identity.as_ref();
        let mut config =
            trust::client(roots, identity.map(|(certificate, key)| (certificate.as_path(), key.as_path())))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let rpc = Arc::new(config.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = files.server_name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Ok(Self { files, name, config: Arc::new(config), rpc })
    }

    /// For whom the certificate of a node must be.
    pub(super) fn name_of(&self, node: &Node) -> Option<ServerName<'static>> {
        match (&self.name, &node.origin) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(origin)) => ServerName::try_from(origin.host.clone()).ok(),
            (None, None) => Some(ServerName::IpAddress(node.id.http.ip.into())),
        }
    }
}
