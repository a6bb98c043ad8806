//! TLS in front of a server without: a CA of a test's own, and a listener that takes TLS off.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goms::shutdown::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

impl Identity {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        Self { ca: ca.pem(), certificate: leaf.pem(), key: key.serialize_pem() }
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
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
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
