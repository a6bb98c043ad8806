//! Servers that stand in the config: `urls` of routes, and `tls`, how they and services are called.

use std::path::PathBuf;
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::address::redacted;
use super::decode::{Decoder, Field};
use super::names::shown;
use super::print::put;
use crate::causes;
use crate::registry::Origin;
use crate::upstream::{ClientTls, ClientTlsFiles};

/// Each is looked at when a node is picked.
const MOST: usize = 64;

/// Reads `urls`.
pub(super) fn urls(decoder: &mut Decoder, field: &Field<'_>) -> Option<Vec<Origin>> {
    let list = decoder.list(field);
    let origins: Vec<Origin> = list.iter().filter_map(|field| decoder.read(field, origin)).collect();
    if list.is_empty() || list.len() > MOST {
        let fault = format!("names {} servers, it must be 1 to {MOST}", list.len());
        decoder.fault(&field.place, fault);
    }
    (!origins.is_empty() && origins.len() == list.len()).then_some(origins)
}

/// `http://host:port` or `https://host`, without a path.
fn origin(text: &str) -> Result<Origin, String> {
    let bad = || {
        let advice = "the path that is called is `rewrite`'s";
        format!(
            "must be an address like `http://10.0.0.7:8080` or `https://example.com`, got `{}`; {advice}",
            shown(&redacted(text))
        )
    };
    let url = url::Url::parse(text).map_err(|_| bad())?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(bad()),
    };
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err(bad());
    }
    let host = url.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    Ok(Origin { host, port: url.port_or_known_default().ok_or_else(bad)?, tls })
}

/// Reads `tls`; `Some(None)` is `none`. The files are read.
pub(super) fn tls(decoder: &mut Decoder, field: &Field<'_>) -> Option<Option<Arc<ClientTls>>> {
    if field.is_scalar() {
        return decoder.read(field, |text| match text {
            "none" => Ok(None),
            _ => Err(format!("must be `none`, or files like `{{ ca: ca.pem }}`, got `{}`", shown(text))),
        });
    }
    let table = decoder.table(field, &["ca", "cert", "key", "serverName"]);
    let mut text = |key| table.get(key).and_then(|field| decoder.some_text(&field));
    let (ca, cert, key, server_name) = (text("ca"), text("cert"), text("key"), text("serverName"));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
        (None, None) => None,
        _ => {
            decoder.fault(&field.place, "needs both `cert` and `key`, or none of them");
            return None;
        }
    };
    load(decoder, field, ClientTlsFiles { ca: ca.map(PathBuf::from), identity, server_name }).map(Some)
}

/// Reads the files.
pub(super) fn load(decoder: &mut Decoder, field: &Field<'_>, files: ClientTlsFiles) -> Option<Arc<ClientTls>> {
    match ClientTls::load(files) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(error) => {
            decoder.fault(&field.place, causes::chain(&error));
            None
        }
    }
}

/// As it could stand in a file.
pub(super) fn put_tls(mapping: &mut Mapping, key: &str, tls: Option<&ClientTls>) {
    let Some(ClientTls { files, .. }) = tls else { return put(mapping, key, "none") };
    let mut shown = Mapping::new();
    let path = |path: &PathBuf| Value::from(path.display().to_string());
    if let Some(ca) = &files.ca {
        put(&mut shown, "ca", path(ca));
    }
    if let Some((cert, key)) = &files.identity {
        put(&mut shown, "cert", path(cert));
        put(&mut shown, "key", path(key));
    }
    if let Some(name) = &files.server_name {
        put(&mut shown, "serverName", name.as_str());
    }
    put(mapping, key, shown);
}
