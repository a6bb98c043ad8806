//! Whom TLS clients of this process believe, and who they are themselves. One provider of cryptography for the whole tree.
//!
//! May import: `causes`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Who vouches for a server.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'a> {
    /// Whom this system trusts.
    System,
    /// Those in a PEM file.
    Only(&'a Path),
    /// Both.
    SystemAnd(&'a Path),
}

/// Why there is no TLS client.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PemError,
    },
    /// A file has nothing of use.
    #[error("no certificate stands in `{}`; it must hold PEM, `-----BEGIN CERTIFICATE-----`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key that is none, or do not belong together.
    #[error("cannot use `{}`", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The system has no certificates.
    #[error("this system trusts nobody; install its `ca-certificates`, or name a PEM file of those who vouch")]
    NoRoots,
    /// The library offers no protocol.
    #[error("TLS cannot be used")]
    Protocol(#[source] rustls::Error),
}

impl TrustError {
    /// The file that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Empty { path } | Self::Refused { path, .. } => Some(path),
            Self::NoRoots | Self::Protocol(_) => None,
        }
    }
}

/// A client that believes `roots`; `identity` are the PEM files of its own certificate (with those that vouch for it) and
/// of its key.
///
/// # Errors
/// [`TrustError`] when a file cannot be used or there is nobody to believe.
pub fn client(roots: Roots<'_>, identity: Option<(&Path, &Path)>) -> Result<ClientConfig, TrustError> {
    let mut store = RootCertStore::empty();
    if let Roots::System | Roots::SystemAnd(_) = roots {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::debug!("a certificate of this system cannot be read: {error}");
        }
        store.add_parsable_certificates(found.certs);
    }
    if let Roots::Only(path) | Roots::SystemAnd(path) = roots {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|source| TrustError::Refused { path: path.to_owned(), source })?;
        }
    }
    if store.is_empty() {
        return Err(TrustError::NoRoots);
    }
    // named, so that it does not depend on which others the tree happens to bring
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Protocol)?
        .with_root_certificates(store);
    let Some((certificate, key_file)) = identity else { return Ok(client.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key_file);
    let key = key.map_err(|source| TrustError::File { path: key_file.to_owned(), source })?;
    let refused = |source| TrustError::Refused { path: certificate.to_owned(), source };
    client.with_client_auth_cert(chain, key).map_err(refused)
}

/// The certificates of a PEM file, in their order; there may be none.
pub(crate) fn pem_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_file_iter(path)?.collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let found = pem_certificates(path).map_err(|source| TrustError::File { path: path.to_owned(), source })?;
    if found.is_empty() { Err(TrustError::Empty { path: path.to_owned() }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::chain;

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (absent, other) = (folder.path().join("absent.pem"), folder.path().join("other.pem"));
        std::fs::write(&other, "no PEM at all").unwrap();
        for (path, said) in [(&absent, "cannot use"), (&other, "no certificate stands in")] {
            for roots in [Roots::Only(path), Roots::SystemAnd(path)] {
                let error = client(roots, None).expect_err("a fault");
                assert_eq!(error.path(), Some(path.as_path()));
                let fault = chain(&error);
                assert!(fault.contains(said) && fault.contains(&path.display().to_string()), "{fault}");
            }
        }
    }
}
