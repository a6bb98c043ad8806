//! TLS in front of a server without: a CA of a test's own, and a listener that takes TLS off.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goms::shutdown::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for 127.0.0.1, its key, and the CA that vouches for it; each as PEM.
pub struct Identity {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

/// An [`Identity`] as files.
pub struct IdentityFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A CA of a test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Vouches for a key of these names.
    pub fn vouch(&self, names: &[&str]) -> Identity {
        self.vouch_until(names, (2099, 1, 1))
    }

    /// The same, until then.
    pub fn vouch_until(&self, names: &[&str], end: (i32, u8, u8)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Identity { ca: self.0.pem(), certificate: leaf.pem(), key: key.serialize_pem() }
    }
}

impl Identity {
    pub fn new() -> Self {
        Authority::new().vouch(&["127.0.0.1"])
    }

    /// Writes it into a folder.
    pub fn files(&self, folder: &Path) -> IdentityFiles {
        let file = |name: &str, pem: &str| {
            let path = folder.join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        IdentityFiles {
            ca: file("ca.pem", &self.ca),
            certificate: file("certificate.pem", &self.certificate),
            key: file("key.pem", &self.key),
        }
    }
}

/// Takes TLS off and hands the bytes to a plain server; ends when dropped.
pub struct TlsFront {
    pub address: SocketAddr,
    shutdown: Shutdown,
}

impl TlsFront {
    pub async fn start(identity: &Identity, server: SocketAddr) -> Self {
        Self::with(identity, server, WebPkiClientVerifier::no_client_auth()).await
    }

    /// Lets in only who has a certificate of this identity's CA.
    pub async fn asking(identity: &Identity, server: SocketAddr) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(identity.ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        Self::with(identity, server, verifier).await
    }

    async fn with(identity: &Identity, server: SocketAddr, clients: Arc<dyn ClientCertVerifier>) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let tasks = shutdown.clone();
        shutdown.spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = tasks.begun() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (acceptor, ending) = (acceptor.clone(), tasks.clone());
                let bridge = async move {
                    // a client that does not trust it goes away
                    let Ok(mut client) = acceptor.accept(socket).await else { return };
                    let mut server = TcpStream::connect(server).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                };
                tasks.spawn(async move {
                    tokio::select! {
                        () = ending.begun() => {}
                        () = bridge => {}
                    }
                });
            }
        });
        Self { address, shutdown }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// A client that trusts a CA (PEM), speaks these protocols and shows who it is, if it is anybody.
pub fn client(ca: &str, protocols: &[&str], own: Option<&Identity>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Connects for a name.
pub async fn connect(client: &TlsConnector, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    client.connect(name, TcpStream::connect(address).await?).await
}

/// The certificate that a server showed, as DER.
pub fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// What a PEM file of one certificate holds.
pub fn der(certificate: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()
}
