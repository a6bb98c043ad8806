//! TLS to the collector: whom goms trusts, and who it is.

use std::sync::Arc;

use rustls::ClientConfig;

use super::OtlpSettings;
use crate::trust::{self, Roots, TrustError};

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {source}")]
pub struct TlsError {
    /// The standard variable that names the file, or could name one.
    variable: &'static str,
    #[source]
    source: TrustError,
}

const CA: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const IDENTITY: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// A client that believes the certificates of `ca_file`, or those of the system.
///
/// # Errors
/// [`TlsError`] when a file cannot be used or the system has no certificates.
pub(super) fn config(settings: &OtlpSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = settings.ca_file.as_deref().map_or(Roots::System, Roots::Only);
    let identity = settings.identity_files.as_ref();
    let client = trust::client(roots, identity.map(|(certificate, key)| (certificate.as_path(), key.as_path())));
    client.map(Arc::new).map_err(|source| {
        let is = |file: Option<&std::path::PathBuf>| file.is_some_and(|file| source.path() == Some(file));
        let variable = match () {
            () if is(identity.map(|(_, key)| key)) => KEY,
            () if is(identity.map(|(certificate, _)| certificate)) => IDENTITY,
            () => CA,
        };
        TlsError { variable, source }
    })
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
