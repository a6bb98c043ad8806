//! TLS in front of a server without: a certificate that vouches for itself, and a listener that takes TLS off.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use goms::shutdown::Shutdown;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A certificate for 127.0.0.1 and its key, in PEM; it is its own authority.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    /// Made with `openssl`; without it `None` and a line that the test is skipped, except in CI.
    pub fn make(dir: &Path) -> Option<Self> {
        let (key, certificate) = (dir.join("key.pem"), dir.join("ca.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=goms",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=CA:FALSE",
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no openssl to make a certificate with");
            eprintln!("SKIPPED: no openssl to make a certificate with");
            return None;
        }
        Some(Self { certificate, key })
    }
}

/// Takes TLS off and hands the bytes to a plain server; ends when dropped.
pub struct TlsFront {
    pub address: SocketAddr,
    shutdown: Shutdown,
}

impl TlsFront {
    pub async fn start(identity: &Identity, server: SocketAddr) -> Self {
        let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
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
