//! TLS to the collector: whom goms trusts, and who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::OtlpSettings;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or holds something else.
    #[error("{variable}: cannot use `{path}`")]
    File {
        /// The standard variable that names it.
        variable: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file without a certificate.
    #[error("{variable}: no certificate stands in `{path}`; it must hold PEM, `-----BEGIN CERTIFICATE-----`")]
    Empty {
        /// The standard variable that names it.
        variable: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// A certificate or key that TLS cannot use.
    #[error("{variable}: cannot be used for TLS")]
    Refused {
        /// The standard variable that names it.
        variable: &'static str,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The system has no certificates.
    #[error("this system trusts nobody; install its `ca-certificates`, or name a PEM file by {CA}")]
    NoRoots,
}

const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const IDENTITY: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// A client that believes the certificates of `ca_file`, or those of the system.
///
/// # Errors
/// [`TlsError`] when a file cannot be used or the system has no certificates.
pub(super) fn config(settings: &OtlpSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(path) => {
            for certificate in certificates(CA, path)? {
                roots.add(certificate).map_err(|source| TlsError::Refused { variable: CA, source })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                log::debug!("a certificate of this system cannot be read: {error}");
            }
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    // named, so that it does not depend on which others the tree happens to bring
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Refused { variable: CA, source })?
        .with_root_certificates(roots);
    let client = match &settings.identity_files {
        Some((certificate, key)) => {
            let chain = certificates(IDENTITY, certificate)?;
            let unreadable = |source| TlsError::File { variable: KEY, path: key.clone(), source };
            let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
            client
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Refused { variable: IDENTITY, source })?
        }
        None => client.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

fn certificates(variable: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File { variable, path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty { variable, path: path.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::chain;

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_variable() {
        let folder = tempfile::tempdir().unwrap();
        let (absent, other) = (folder.path().join("absent.pem"), folder.path().join("other.pem"));
        std::fs::write(&other, "no PEM at all").unwrap();
        let fault = |settings: OtlpSettings| chain(&config(&settings).expect_err("a fault"));
        for (path, said) in [(&absent, "cannot use"), (&other, "no certificate stands in")] {
            let fault = fault(OtlpSettings { ca_file: Some(path.clone()), ..OtlpSettings::default() });
            assert!(
                fault.contains(CA) && fault.contains(said) && fault.contains(&path.display().to_string()),
                "{fault}"
            );
        }
    }
}
