//! `tls`: who a gateway is on its HTTPS port; `serviceTls`: who services are on theirs, and how nodes are called that say so.

use std::path::PathBuf;
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::decode::{At, Decoder, Field, boolean, word};
use super::origins;
use super::print::{name_of, put};
use crate::listener::{CertificateFiles, ClientAuth, TlsSettings, ToHttps};
use crate::upstream::ClientTls;

const CLIENT_AUTH: [(&str, ClientAuth); 3] =
    [("off", ClientAuth::Off), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct RawTls {
    certificates: Vec<CertificateFiles>,
    client_ca: Option<At<PathBuf>>,
    client_auth: Option<At<ClientAuth>>,
    rpc: Option<bool>,
    redirect: Option<ToHttps>,
    http: Option<bool>,
    /// How nodes are called that say that they take TLS.
    pub(super) call: Option<Arc<ClientTls>>,
}

/// The keys of a gateway's.
pub(super) const KEYS: &[&str] = &["certificates", "clientCa", "clientAuth", "rpc", "redirectToHttps"];
/// Those of services'.
pub(super) const SERVICE_KEYS: &[&str] = &["certificates", "clientCa", "clientAuth", "http", "call"];

/// Reads the section.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>, keys: &[&str]) -> At<RawTls> {
    let table = decoder.table(field, keys);
    let list = table.get("certificates").map(|field| decoder.list(&field)).unwrap_or_default();
    let certificates = list.iter().filter_map(|field| certificate(decoder, field)).collect();
    let client_ca = table.get("clientCa").and_then(|field| {
        let path = decoder.some_text(&field)?;
        Some(At { value: PathBuf::from(path), place: field.place.clone() })
    });
    let client_auth = table.get("clientAuth").and_then(|field| decoder.read_at(&field, word("word", &CLIENT_AUTH)));
    let rpc = table.get("rpc").and_then(|field| decoder.read(&field, boolean));
    let redirect = table.get("redirectToHttps").and_then(|field| decoder.read(&field, to_https)).flatten();
    let http = table.get("http").and_then(|field| decoder.read(&field, boolean));
    let call = table.get("call").and_then(|field| origins::tls(decoder, &field)).flatten();
    let value = RawTls { certificates, client_ca, client_auth, rpc, redirect, http, call };
    At { value, place: field.place.clone() }
}

fn to_https(text: &str) -> Result<Option<ToHttps>, String> {
    if let Ok(asked) = boolean(text) {
        return Ok(asked.then_some(ToHttps::Own));
    }
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(Some(ToHttps::Port(port))),
        _ => Err(format!("must be `true`, `false` or the port that clients see, got `{}`", super::names::shown(text))),
    }
}

fn certificate(decoder: &mut Decoder, field: &Field<'_>) -> Option<CertificateFiles> {
    let table = decoder.table(field, &["cert", "key"]);
    let mut path = |key: &str| match table.get(key) {
        Some(field) => decoder.some_text(&field).map(PathBuf::from),
        None => {
            decoder.fault(
                &field.place,
                format!("needs `{key}`, a PEM file; write `{{ cert: site.pem, key: site-key.pem }}`"),
            );
            None
        }
    };
    let (cert, key) = (path("cert"), path("key"));
    Some(CertificateFiles { cert: cert?, key: key? })
}

/// Makes the settings; what does not fit together goes to the decoder.
pub(super) fn resolve(decoder: &mut Decoder, At { value: raw, place }: At<RawTls>) -> Option<TlsSettings> {
    // a fault of one of them was told
    if raw.certificates.is_empty() && raw.call.is_none() && decoder.faults.is_empty() {
        decoder.fault(
            &place,
            "needs `certificates`; write for example `certificates: [{ cert: site.pem, key: site-key.pem }]`",
        );
    }
    let auth = raw.client_auth.as_ref().map(|at| at.value);
    match (&raw.client_ca, &raw.client_auth) {
        (Some(ca), None) => {
            decoder.fault(&ca.place, "needs `clientAuth` beside it: `required`, or `optional`");
        }
        (None, Some(at)) if at.value != ClientAuth::Off => {
            decoder.fault(&at.place, "needs `clientCa` beside it, the PEM file of who vouches for clients");
        }
        _ => {}
    }
    (!raw.certificates.is_empty()).then(|| TlsSettings {
        certificates: raw.certificates,
        client_ca: raw.client_ca.map(|at| at.value),
        client_auth: auth.unwrap_or_default(),
        rpc: raw.rpc.unwrap_or(false),
        redirect: raw.redirect,
        plain_http: raw.http == Some(false),
    })
}

/// `serviceTls` as it could stand in a file; `None`: there is nothing of it.
pub(super) fn shown_service(settings: Option<&TlsSettings>, call: Option<&ClientTls>) -> Option<Mapping> {
    if settings.is_none() && call.is_none() {
        return None;
    }
    let mut tls = settings.map(|settings| shown(settings, SERVICE_KEYS)).unwrap_or_default();
    if let Some(call) = call {
        origins::put_tls(&mut tls, "call", Some(call));
    }
    Some(tls)
}

/// As it could stand in a file.
pub(super) fn shown(settings: &TlsSettings, keys: &[&str]) -> Mapping {
    let mut tls = Mapping::new();
    let certificate = |files: &CertificateFiles| {
        let mut pair = Mapping::new();
        put(&mut pair, "cert", files.cert.display().to_string());
        put(&mut pair, "key", files.key.display().to_string());
        Value::from(pair)
    };
    put(&mut tls, "certificates", settings.certificates.iter().map(certificate).collect::<Vec<_>>());
    if let Some(ca) = &settings.client_ca {
        put(&mut tls, "clientCa", ca.display().to_string());
    }
    put(&mut tls, "clientAuth", name_of(&CLIENT_AUTH, settings.client_auth));
    if keys.contains(&"rpc") {
        put(&mut tls, "rpc", settings.rpc);
    }
    if keys.contains(&"http") {
        put(&mut tls, "http", !settings.plain_http);
    }
    if keys.contains(&"redirectToHttps") {
        match settings.redirect {
            Some(ToHttps::Port(port)) => put(&mut tls, "redirectToHttps", port),
            other => put(&mut tls, "redirectToHttps", other.is_some()),
        }
    }
    tls
}
