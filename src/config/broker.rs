//! `broker`: where services leave messages for each other.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml::Mapping;

use super::NodeFlags;
use super::address::{amqp, redacted};
use super::decode::{At, Decoder, Field, number};
use super::names::unknown;
use super::print::{duration, put};
use super::units::parse_positive_duration;
use crate::broker::{Backend, Settings};
use crate::registry;

/// A handler that failed five times in a row will not succeed soon.
const DEFAULT_ATTEMPTS: u32 = 5;
const DEFAULT_BACKOFF: Duration = Duration::from_millis(500);
const MOST_ATTEMPTS: u32 = 1_000;
/// Where a server of one's own machine listens.
const DEFAULTS: [(BrokerWord, &str); 3] = [
    (BrokerWord::Amqp, "amqp://guest:guest@127.0.0.1:5672"),
    (BrokerWord::Mqtt, "mqtt://127.0.0.1:1883"),
    (BrokerWord::Nats, "nats://127.0.0.1:4222"),
];

/// Which broker was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerWord {
    /// Inside this process.
    Memory,
    /// RabbitMQ.
    Amqp,
    /// MQTT 5.
    Mqtt,
    /// NATS with JetStream.
    Nats,
    /// Go Micro's, without a server.
    Http,
}

/// Reads the word of a broker.
///
/// # Errors
/// What is wrong with it, with the nearest word.
pub fn broker_word(text: &str) -> Result<BrokerWord, String> {
    match text {
        "memory" => Ok(BrokerWord::Memory),
        "amqp" | "rabbitmq" => Ok(BrokerWord::Amqp),
        "mqtt" => Ok(BrokerWord::Mqtt),
        "nats" => Ok(BrokerWord::Nats),
        "http" => Ok(BrokerWord::Http),
        _ => Err(unknown("broker", text, &["memory", "amqp", "mqtt", "nats", "http"])),
    }
}

/// What a file says of it.
#[derive(Debug, Default)]
pub(super) struct RawBroker {
    kind: Option<At<BrokerWord>>,
    address: Option<At<String>>,
    ca_file: Option<At<String>>,
    attempts: Option<NonZeroU32>,
    backoff: Option<Duration>,
}

/// Reads it.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> RawBroker {
    let table = decoder.table(field, &["kind", "address", "caFile", "attempts", "backoff"]);
    let attempts = table.get("attempts").and_then(|field| decoder.read(&field, number(1, MOST_ATTEMPTS)));
    let mut text = |key| {
        let field = table.get(key)?;
        decoder.some_text(&field).map(|value| At { value, place: field.place.clone() })
    };
    let (address, ca_file) = (text("address"), text("caFile"));
    RawBroker {
        address,
        ca_file,
        kind: table.get("kind").and_then(|field| decoder.read_at(&field, broker_word)),
        attempts: attempts.and_then(NonZeroU32::new),
        backoff: table.get("backoff").and_then(|field| decoder.read(&field, parse_positive_duration)),
    }
}

/// Puts file and flags together. `amqp_urls` is where the trace events go, unless another address is named; `runtime_dir` is
/// the process's runtime folder.
pub(super) fn resolve(
    decoder: &mut Decoder,
    raw: RawBroker,
    flags: &NodeFlags,
    amqp_urls: &[String],
    registry: &registry::Settings,
    runtime_dir: &Path,
) -> Settings {
    let flag = flags.broker_address.as_deref();
    let given = flag.or(raw.address.as_ref().map(|at| at.value.as_str()));
    let word = flags.broker.or(raw.kind.as_ref().map(|at| at.value)).unwrap_or_else(|| of_address(given));
    check_registry(decoder, word, &raw, flags, registry);
    let by_tls = word == BrokerWord::Mqtt && given.is_some_and(|given| given.starts_with("mqtts://"));
    if let Some(at) = raw.ca_file.as_ref().filter(|_| !by_tls) {
        decoder.fault(&at.place, "vouches for a broker at `mqtts://`, and there is none");
    }
    let mut fault = |message: String| match (flag, &raw.address) {
        (None, Some(at)) => decoder.fault(&at.place, message),
        _ => decoder.flag_fault("--broker-address", message),
    };
    let usual = DEFAULTS.iter().find(|(known, _)| *known == word).map_or("", |(_, address)| address);
    let mut urls: Vec<String> = match (word, given) {
        (BrokerWord::Memory | BrokerWord::Http, None) => Vec::new(),
        (BrokerWord::Amqp, None) if !amqp_urls.is_empty() => amqp_urls.to_vec(),
        (_, None) => vec![usual.to_owned()],
        (_, Some(list)) => list.split(',').map(|one| one.trim().to_owned()).collect(),
    };
    let mut listen = None;
    let checked = urls.iter_mut().try_for_each(|url| match word {
        BrokerWord::Memory => Err("is for another broker than `memory`, which has none".to_owned()),
        BrokerWord::Amqp => amqp(url).map(|good| *url = good),
        BrokerWord::Mqtt | BrokerWord::Nats => of_scheme(url, usual),
        BrokerWord::Http => listened(url).map(|address| listen = Some(address)),
    });
    match checked {
        Err(message) => fault(message),
        Ok(()) if matches!(word, BrokerWord::Mqtt | BrokerWord::Http) && urls.len() > 1 => {
            fault("must be one address for `mqtt` and `http`".to_owned());
        }
        Ok(()) => {}
    }
    Settings {
        backend: match word {
            BrokerWord::Memory => Backend::Memory,
            BrokerWord::Amqp => Backend::Amqp(urls),
            BrokerWord::Mqtt => {
                let ca_file = raw.ca_file.map(|at| PathBuf::from(at.value));
                Backend::Mqtt { url: urls.into_iter().next().unwrap_or_default(), ca_file }
            }
            BrokerWord::Nats => Backend::Nats(urls),
            BrokerWord::Http => Backend::Http(listen),
        },
        namespace: registry.namespace.clone(),
        attempts: raw.attempts.map_or(DEFAULT_ATTEMPTS, NonZeroU32::get),
        backoff: raw.backoff.unwrap_or(DEFAULT_BACKOFF),
        runtime_dir: runtime_dir.to_owned(),
    }
}

/// `http` finds who hears in a registry that has a place for them.
fn check_registry(
    decoder: &mut Decoder,
    word: BrokerWord,
    raw: &RawBroker,
    flags: &NodeFlags,
    registry: &registry::Settings,
) {
    let has_place = matches!(registry.backend, registry::Backend::Etcd(_) | registry::Backend::Memory);
    if word != BrokerWord::Http || has_place {
        return;
    }
    let kind = registry.backend.kind();
    let message = format!("the broker `http` finds who hears in etcd, and the registry is `{kind}`; name an etcd");
    match raw.kind.as_ref().filter(|_| flags.broker.is_none()) {
        Some(at) => decoder.fault(&at.place, message),
        None => decoder.flag_fault("--broker", message),
    }
}

/// An address names its broker.
fn of_address(address: Option<&str>) -> BrokerWord {
    let scheme = address.and_then(|address| address.split_once("://")).map_or("", |(scheme, _)| scheme);
    match scheme {
        "amqp" | "amqps" => BrokerWord::Amqp,
        "mqtt" | "mqtts" => BrokerWord::Mqtt,
        "nats" | "tls" => BrokerWord::Nats,
        "http" => BrokerWord::Http,
        _ => BrokerWord::Memory,
    }
}

fn of_scheme(text: &str, usual: &str) -> Result<(), String> {
    let bad = |why: &str| format!("`{}` is no address: {why}; write for example `{usual}`", redacted(text));
    let scheme = usual.split_once("://").map_or("", |(scheme, _)| scheme);
    let url = url::Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    match url.scheme() {
        "mqtts" if scheme == "mqtt" && url.host_str().is_some_and(|host| !host.is_empty()) => Ok(()),
        "tls" if scheme == "nats" => Ok(()),
        other if other != scheme => Err(bad(&format!("it must begin with `{scheme}://`"))),
        _ if url.host_str().is_none_or(str::is_empty) => Err(bad("it has no host")),
        _ => Ok(()),
    }
}

/// Where a process that hears by HTTP listens: `http://10.0.0.5:9900`, or without the scheme.
fn listened(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    address.parse().map_err(|_| {
        format!("`{text}` is not where a process can listen for messages; write for example `http://0.0.0.0:9900`")
    })
}

/// What is in force, without secrets.
pub(super) fn shown(settings: &Settings) -> Mapping {
    let mut broker = Mapping::new();
    put(&mut broker, "kind", settings.backend.kind());
    let list = |urls: &[String]| urls.iter().map(|url| redacted(url)).collect::<Vec<_>>().join(",");
    match &settings.backend {
        Backend::Memory | Backend::Http(None) => {}
        Backend::Http(Some(listen)) => put(&mut broker, "address", format!("http://{listen}")),
        Backend::Amqp(urls) | Backend::Nats(urls) => put(&mut broker, "address", list(urls)),
        Backend::Mqtt { url, ca_file } => {
            put(&mut broker, "address", redacted(url));
            if let Some(file) = ca_file {
                put(&mut broker, "caFile", file.display().to_string());
            }
        }
    }
    put(&mut broker, "attempts", settings.attempts);
    put(&mut broker, "backoff", duration(settings.backoff));
    broker
}
