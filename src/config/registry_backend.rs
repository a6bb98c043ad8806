//! What `registry` says of Consul and of a static registry: one address, and how Consul lets us in.

use super::address::{etcd, is_path};
use super::decode::{At, Decoder};
use super::flags::RegistryWord;
use super::raw::RawRegistry;
use crate::registry::{Backend, ConsulSettings};

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
        (Some(_), _) if matches!(word, RegistryWord::Consul | RegistryWord::Static) => {
            fault("must be one address; an agent of Consul knows its servers");
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
            fault("is for `kind: consul` and `kind: static`; etcd's addresses stand in `etcdAddr`");
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
    if let Some(token) = token.as_ref().filter(|token| !token.value.bytes().all(|byte| byte.is_ascii_graphic())) {
        decoder.fault(&token.place, "must be printable ASCII without spaces, as it travels in a header");
    }
    let ca_file = ca_file.map(|at| at.value.into());
    Backend::Consul(ConsulSettings { address, token: token.map(|at| at.value), ca_file })
}
