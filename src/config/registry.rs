//! `registry` and `etcd`: which registry, and how long a node is known in it.

use std::time::Duration;

use super::decode::Decoder;
use super::environment::{self, Folders};
use super::flags::{CommonFlags, RegistryWord};
use super::raw::{RawEtcd, RawRegistry};
use super::resolve::credentials;
use super::units::format_duration;
use super::{names, registry_backend};
use crate::registry;

const DEFAULT_TTL: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(3);
/// What users of Go Micro set.
const GO_MICRO_LEASE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
const DEFAULT_GRACE: Duration = Duration::from_secs(15);
/// An outage over a night. What has the address of a node that left may be something else by then, and the more the longer.
const DEFAULT_REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// etcd's leases count whole seconds.
const LEAST_TTL: Duration = Duration::from_secs(1);

/// How nodes find each other.
pub(super) fn resolve(
    decoder: &mut Decoder,
    raw: RawRegistry,
    file_addresses: Vec<String>,
    etcd: RawEtcd,
    common: &CommonFlags,
    folders: &Folders,
) -> registry::Settings {
    let flag_addresses = common.registry_address.as_deref().map(<[String]>::to_vec);
    let word = common.registry.unwrap_or(match (&flag_addresses, &raw.kind) {
        (Some(_), Some(kind))
            if matches!(kind.value, RegistryWord::Consul | RegistryWord::Kubernetes | RegistryWord::Static) =>
        {
            kind.value
        }
        (Some(_), _) => RegistryWord::Etcd,
        (None, Some(kind)) => kind.value,
        (None, None) if !file_addresses.is_empty() => RegistryWord::Etcd,
        (None, None) => RegistryWord::Local,
    });
    let one = registry_backend::address(decoder, word, flag_addresses.as_deref(), &raw, common.registry.is_some());
    let endpoints = flag_addresses.unwrap_or(file_addresses);
    let missing = "the registry `etcd` needs an address; set `etcdAddr` or `--etcd-addr 127.0.0.1:2379`";
    if word == RegistryWord::Etcd && endpoints.is_empty() {
        match (common.registry, &raw.kind) {
            (None, Some(kind)) => decoder.fault(&kind.place.clone(), missing),
            _ => decoder.flag_fault("--registry", missing),
        }
    }
    let etcd = etcd_settings(decoder, endpoints, etcd);
    if let Some(Err(message)) = common.namespace.as_deref().map(names::namespace) {
        decoder.flag_fault("--namespace", format!("{message}; with `--handler` it may"));
    }
    let format = common.registry_format.or(raw.format).unwrap_or_default();
    let age = raw.remember.unwrap_or(DEFAULT_REMEMBER);
    let (register_ttl, register_interval) = lease(decoder, &raw, common, format);
    registry::Settings {
        backend: match word {
            RegistryWord::Local => registry::Backend::Local { dir: folders.runtime.clone() },
            RegistryWord::Memory => registry::Backend::Memory,
            RegistryWord::Etcd => registry::Backend::Etcd(etcd),
            RegistryWord::Consul => registry_backend::consul(decoder, one, raw.token, raw.ca_file),
            RegistryWord::Kubernetes => {
                let pod = environment::Pod::of_this_process();
                registry_backend::kubernetes(decoder, one, pod, &raw)
            }
            RegistryWord::Mdns => registry::Backend::Mdns,
            RegistryWord::Static => registry::Backend::Static { file: one.into() },
        },
        namespace: common.namespace.clone().or(raw.namespace).unwrap_or_else(|| "goms".to_owned()),
        register_ttl,
        register_interval,
        grace: common.registry_grace.or(raw.grace).unwrap_or(DEFAULT_GRACE),
        format,
        remember: (!age.is_zero()).then(|| registry::Remember { dir: folders.data.join("catalog"), age }),
    }
}

/// TTL and interval. An interval that nobody named is a third of a short TTL.
fn lease(
    decoder: &mut Decoder,
    raw: &RawRegistry,
    common: &CommonFlags,
    format: registry::Format,
) -> (Duration, Duration) {
    let (default_ttl, default_interval) = match format {
        registry::Format::Goms => (DEFAULT_TTL, DEFAULT_INTERVAL),
        registry::Format::GoMicro => GO_MICRO_LEASE,
    };
    let ttl = common.register_ttl.or(raw.ttl.as_ref().map(|at| at.value)).unwrap_or(default_ttl);
    let interval = common.register_interval.or(raw.interval.as_ref().map(|at| at.value));
    let file_ttl = raw.ttl.as_ref().filter(|_| common.register_ttl.is_none());
    let file_interval = raw.interval.as_ref().filter(|_| common.register_interval.is_none());
    if ttl < LEAST_TTL {
        let message = format!("must be at least `1s`, got `{}`", format_duration(ttl));
        match file_ttl {
            Some(at) => decoder.fault(&at.place, message),
            None => decoder.flag_fault("--register-ttl", message),
        }
    }
    if let Some(interval) = interval.filter(|interval| *interval >= ttl) {
        let (interval, ttl) = (format_duration(interval), format_duration(ttl));
        let message =
            format!("must be smaller than the ttl `{ttl}`, or nodes vanish between renewals; got `{interval}`");
        match (file_interval, file_ttl) {
            (Some(at), _) => decoder.fault(&at.place, message),
            (None, _) => decoder.flag_fault("--register-interval", message),
        }
    }
    (ttl, interval.unwrap_or_else(|| default_interval.min(ttl / 3)))
}

fn etcd_settings(decoder: &mut Decoder, endpoints: Vec<String>, raw: RawEtcd) -> registry::EtcdSettings {
    let credentials = credentials(decoder, raw.user, raw.password);
    let identity_files = match (raw.cert_file, raw.key_file) {
        (Some(cert), Some(key)) => Some((cert.value, key.value)),
        (Some(cert), None) => {
            decoder.fault(&cert.place, "a certificate needs a `keyFile` beside it");
            None
        }
        (None, Some(key)) => {
            decoder.fault(&key.place, "a key needs a `certFile` beside it");
            None
        }
        (None, None) => None,
    };
    registry::EtcdSettings { endpoints, credentials, ca_file: raw.ca_file, identity_files }
}
