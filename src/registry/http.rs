//! A client for registries with an API over HTTP.

use std::path::Path;
use std::time::Duration;

use super::RegistryError;

/// How often a silent connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A client without proxies and redirects, which a token must not follow.
///
/// # Errors
/// [`RegistryError::Setting`] when the CA certificate cannot be read.
pub(super) fn client(ca_file: Option<&Path>) -> Result<reqwest::Client, RegistryError> {
    let bad = |setting: &'static str, reason: String| RegistryError::Setting { setting, reason };
    let mut builder =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).tcp_keepalive(KEEPALIVE);
    if let Some(path) = ca_file {
        let pem = std::fs::read(path)
            .map_err(|error| bad("ca_file", format!("cannot read `{}`: {error}", path.display())))?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| bad("ca_file", format!("`{}`: {error}", path.display())))?;
        builder = roots
            .into_iter()
            .fold(builder.tls_built_in_root_certs(false), reqwest::ClientBuilder::add_root_certificate);
    }
    builder.build().map_err(|error| bad("address", error.to_string()))
}
