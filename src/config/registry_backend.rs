//! What `registry` says of Consul and of a static registry: one address, and how Consul lets us in.

use super::address::{etcd, is_path};
use super::decode::{At, Decoder};
use super::environment::Pod;
use super::flags::RegistryWord;
use super::raw::RawRegistry;
use crate::registry::{Backend, ConsulSettings, KubernetesSettings};

/// Where an agent listens.
const CONSUL_DEFAULT: &str = "127.0.0.1:8500";

/// The address of the registries that have one alone; empty for the others, and where a fault was told.
pub(super) fn address(
    decoder: &mut Decoder,
    word: RegistryWord,
    flag: Option<&[String]>,
    raw: &RawRegistry,
    word_is_flag: bool,
) -> String {
    let mut fault = |message: &str| match (flag, &raw.address) {
        (None, Some(at)) => decoder.fault(&at.place, message),
        (Some(_), _) => decoder.flag_fault("--registry-address", message),
        (None, None) => match raw.kind.as_ref().filter(|_| !word_is_flag) {
            Some(kind) => decoder.fault(&kind.place, message),
            None => decoder.flag_fault("--registry", message),
        },
    };
    let given = match (flag, &raw.address) {
        (Some([one]), _) => Some(one.as_str()),
        (Some(_), _) if matches!(word, RegistryWord::Consul | RegistryWord::Kubernetes | RegistryWord::Static) => {
            fault("must be one address: that of Consul's agent, of Kubernetes' API, or a file");
            return String::new();
        }
        (Some(_), _) => None,
        (None, at) => at.as_ref().map(|at| at.value.as_str()),
    };
    match (word, given) {
        (RegistryWord::Consul, given) => {
            let given = given.unwrap_or(CONSUL_DEFAULT);
            if let Err(problem) = etcd(given) {
                fault(&problem.replace("2379", "8500"));
            }
            given.to_owned()
        }
        (RegistryWord::Kubernetes, Some(given)) => {
            if let Err(problem) = etcd(given) {
                fault(&problem.replace("127.0.0.1:2379", "https://10.96.0.1:443"));
            }
            given.to_owned()
        }
        (RegistryWord::Static, Some(file)) => file.to_owned(),
        (RegistryWord::Static, None) => {
            fault("the registry `static` needs a file; set `registry.address` or `--registry-address nodes.yml`");
            String::new()
        }
        (RegistryWord::Etcd, Some(one)) if is_path(one) => {
            fault("is a file, which only `--registry static` reads; etcd's addresses are `host:port`");
            String::new()
        }
        (_, Some(_)) if flag.is_none() => {
            fault("is for `kind: consul`, `kubernetes` and `static`; etcd's addresses stand in `etcdAddr`");
            String::new()
        }
        _ => String::new(),
    }
}

/// Consul, with what `registry` says of its token and certificate.
pub(super) fn consul(
    decoder: &mut Decoder,
    address: String,
    token: Option<At<String>>,
    ca_file: Option<At<String>>,
) -> Backend {
    check_token(decoder, token.as_ref());
    let ca_file = ca_file.map(|at| at.value.into());
    Backend::Consul(ConsulSettings { address, token: token.map(|at| at.value), ca_file })
}

/// Kubernetes, with what `registry` says of it, else as a pod finds it.
pub(super) fn kubernetes(decoder: &mut Decoder, address: String, pod: Pod, raw: &RawRegistry) -> Backend {
    check_token(decoder, raw.token.as_ref());
    let given = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
    let address = if address.is_empty() { pod.server.unwrap_or_default() } else { with_scheme(address) };
    if address.is_empty() {
        let message = "the registry `kubernetes` found no API server, since this is no pod; set `registry.address`";
        match &raw.kind {
            Some(kind) => decoder.fault(&kind.place, message),
            None => decoder.flag_fault("--registry", message),
        }
    }
    if let Some(pods) = raw.pods.as_ref().filter(|pods| !is_label(&pods.value)) {
        decoder.fault(&pods.place, "must be a namespace of Kubernetes: small letters, digits and `-`");
    }
    if let Some(selector) = raw.selector.as_ref().filter(|selector| selector.value.trim().is_empty()) {
        let example = KubernetesSettings::SELECTOR;
        let message =
            format!("must say which Services are nodes, or each of them is sent a call key; for example `{example}`");
        decoder.fault(&selector.place, message);
    }
    Backend::Kubernetes(KubernetesSettings {
        address,
        token: given(&raw.token),
        ca_file: given(&raw.ca_file).map(Into::into),
        pods: given(&raw.pods).or(pod.namespace).unwrap_or_else(|| "default".to_owned()),
        selector: given(&raw.selector).unwrap_or_else(|| KubernetesSettings::SELECTOR.to_owned()),
    })
}

/// Kubernetes' API has TLS everywhere.
fn with_scheme(address: String) -> String {
    if address.contains("://") { address } else { format!("https://{address}") }
}

/// RFC 1123.
fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

fn check_token(decoder: &mut Decoder, token: Option<&At<String>>) {
    if let Some(token) = token.filter(|token| !token.value.bytes().all(|byte| byte.is_ascii_graphic())) {
        decoder.fault(&token.place, "must be printable ASCII without spaces, as it travels in a header");
    }
}
