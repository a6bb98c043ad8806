//! The flags that every command shares and those of a running node; each also as a `GOMS_…` variable.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::address::Listen;
use super::units::{parse_duration, parse_positive_duration};
use crate::balance::Selector;

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Common flags")]
pub struct CommonFlags {
    /// Config file [default: goms.yml or config/config.yml if it is there, else the built-in config]
    #[arg(long, global = true, env = "GOMS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where nodes find each other: `local`, `etcd`, `consul`, `mdns`, `static` or `memory` [default: etcd when it has an address, else local]
    #[arg(long, global = true, env = "GOMS_REGISTRY", hide_short_help = true, value_name = "KIND", value_parser = registry_word)]
    pub registry: Option<RegistryWord>,

    /// Addresses of the registry, e.g. `10.0.0.1:2379,10.0.0.2:2379`, or 'a|b'; of `static` its file
    #[arg(
        long,
        global = true,
        env = "GOMS_REGISTRY_ADDRESS",
        visible_alias = "etcd-addr",
        value_name = "A,B",
        value_parser = super::address::registry_list
    )]
    pub registry_address: Option<std::sync::Arc<[String]>>,

    /// How long a node that stopped renewing stays visible [default: 10s; in the form of Go Micro 30s]
    #[arg(long, global = true, env = "GOMS_REGISTER_TTL", alias = "registry-ttl", hide_short_help = true, value_name = "DURATION", value_parser = parse_positive_duration)]
    pub register_ttl: Option<Duration>,

    /// How often a node renews [default: 3s; in the form of Go Micro 10s]
    #[arg(long, global = true, env = "GOMS_REGISTER_INTERVAL", alias = "registry-interval", hide_short_help = true, value_name = "DURATION", value_parser = parse_positive_duration)]
    pub register_interval: Option<Duration>,

    /// How this node is written down in etcd: `goms`, or `go-micro` to be found by nodes of Go Micro [default: goms]
    #[arg(long, global = true, env = "GOMS_REGISTRY_FORMAT", hide_short_help = true, value_name = "FORM", value_parser = super::names::registry_format)]
    pub registry_format: Option<crate::registry::Format>,

    /// How long nodes missing after a gap of the registry stay callable [default: 15s]
    #[arg(long, global = true, env = "GOMS_REGISTRY_GRACE", hide_short_help = true, value_name = "DURATION", value_parser = parse_duration)]
    pub registry_grace: Option<Duration>,

    /// How long to wait at the start for a registry that is away [default: 30s]
    #[arg(long, global = true, env = "GOMS_REGISTRY_WAIT", hide_short_help = true, value_name = "DURATION", value_parser = parse_duration)]
    pub registry_wait: Option<Duration>,

    /// What node keys begin with: `goms`, or `go-ms` to join the older system; with `--handler` what names of services begin with [default: goms; go.micro.api]
    #[arg(long, global = true, env = "GOMS_NAMESPACE", hide_short_help = true, value_name = "NAME", value_parser = super::names::micro_namespace)]
    pub namespace: Option<String>,

    /// How a node is chosen where the config file's `upstreams` does not say [default: round-robin]
    #[arg(long, global = true, env = "GOMS_SELECTOR", hide_short_help = true, value_name = "WORD", value_parser = super::names::selector_flag)]
    pub selector: Option<Selector>,

    /// Where traces and the spool are kept [default: goms under the XDG data home]
    #[arg(long, global = true, env = "GOMS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the local registry is kept [default: goms under the XDG runtime dir]
    #[arg(long, global = true, env = "GOMS_RUNTIME_DIR", hide_short_help = true, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// Form of log lines: `text` or `json` [default: text]
    #[arg(
        long,
        global = true,
        env = "GOMS_LOG_FORMAT",
        hide_short_help = true,
        value_name = "FORM",
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,

    /// Log more: -v debug, -vv trace
    #[arg(short, long, global = true, env = "GOMS_VERBOSE", action = ArgAction::Count)]
    pub verbose: u8,

    /// Log less: -q warnings, -qq errors
    #[arg(short, long, global = true, env = "GOMS_QUIET", action = ArgAction::Count)]
    pub quiet: u8,
}

/// Flags of a command that runs as a node.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Node flags")]
pub struct NodeFlags {
    /// Port for HTTP; 0 is any free one [default: gateway 8080, others a free one]
    #[arg(long, env = "GOMS_HTTP_PORT", value_name = "PORT")]
    pub http_port: Option<u16>,

    /// Port for RPC; 0 is any free one [default: gateway 8180, others a free one]
    #[arg(long, env = "GOMS_RPC_PORT", value_name = "PORT")]
    pub rpc_port: Option<u16>,

    /// Port for health and metrics [default: RPC port + 100]
    #[arg(long, env = "GOMS_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,

    /// Address the admin port binds [default: 127.0.0.1]
    #[arg(long, env = "GOMS_ADMIN_BIND", hide_short_help = true, value_name = "IP")]
    pub admin_bind: Option<IpAddr>,

    /// Address the HTTP and RPC ports bind [default: 0.0.0.0; `up`: 127.0.0.1]
    #[arg(long, env = "GOMS_BIND", value_name = "IP")]
    pub bind: Option<IpAddr>,

    /// Address that other nodes call this one by [default: the one that this machine reaches others from]
    #[arg(long, env = "GOMS_ADVERTISE_IP", hide_short_help = true, value_name = "IP")]
    pub advertise_ip: Option<IpAddr>,

    /// Worker threads [default: the number of cores]
    #[arg(long, env = "GOMS_WORKERS", hide_short_help = true, value_name = "N", value_parser = workers)]
    pub workers: Option<usize>,

    /// How long requests in flight may take to finish at the end [default: 10s]
    #[arg(long, env = "GOMS_DRAIN_TIMEOUT", hide_short_help = true, value_name = "DURATION", value_parser = parse_duration)]
    pub drain_timeout: Option<Duration>,

    /// Print one line a request [default: on for the demo service, off for gateways]
    #[arg(
        long,
        env = "GOMS_ACCESS_LOG",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub access_log: Option<bool>,

    /// Where services leave messages for each other: `memory`, `amqp`, `mqtt` or `nats` [default: memory]
    #[arg(long, env = "GOMS_BROKER", hide_short_help = true, value_name = "KIND", value_parser = super::broker::broker_word)]
    pub broker: Option<super::BrokerWord>,

    /// Address of that broker, which tells its kind too, e.g. `nats://127.0.0.1:4222` [default: that of its own machine]
    #[arg(long, env = "GOMS_BROKER_ADDRESS", hide_short_help = true, value_name = "URL")]
    pub broker_address: Option<String>,

    /// Version of the service, shown by `goms cluster` [default: the version of goms]
    #[arg(long, env = "GOMS_SERVICE_VERSION", hide_short_help = true, value_name = "TEXT")]
    pub service_version: Option<String>,

    /// Where this node stands, e.g. a rack or a data centre
    #[arg(long, env = "GOMS_ZONE", hide_short_help = true, value_name = "TEXT")]
    pub zone: Option<String>,

    /// Its share of the requests beside the other nodes of its service, 1 to 1000 [default: 1]
    #[arg(long, env = "GOMS_WEIGHT", hide_short_help = true, value_name = "N", value_parser = weight)]
    pub weight: Option<u32>,

    /// With `--registry-format go-micro`, how Go nodes are to call this one: `grpc` (v2) or `mucp` (v4, v5) [default: grpc]
    #[arg(
        long,
        env = "GOMS_GO_MICRO_PROTOCOL",
        hide_short_help = true,
        value_name = "WORD",
        hide_possible_values = true
    )]
    pub go_micro_protocol: Option<GoMicroProtocol>,
}

/// How a node speaks with nodes of Go Micro.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GoMicroProtocol {
    /// gRPC on its RPC port, as v2.
    #[default]
    Grpc,
    /// mucp on its HTTP port, as v4 and v5.
    Mucp,
}

fn weight(text: &str) -> Result<u32, String> {
    super::decode::number(1, crate::balance::MOST_WEIGHT)(text)
}

/// Flags of a command that runs a gateway.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gateway flags")]
pub struct GatewayFlags {
    /// Port for HTTPS, with the certificates of `tls` in the config; 0 is any free one [default: 8443]
    #[arg(long, env = "GOMS_HTTPS_PORT", value_name = "PORT")]
    pub https_port: Option<u16>,

    /// Address the HTTPS port binds, for example where plain HTTP is for this machine only [default: that of --bind]
    #[arg(long, env = "GOMS_HTTPS_BIND", hide_short_help = true, value_name = "IP")]
    pub https_bind: Option<IpAddr>,

    /// Take HTTP on a Unix socket too; the file is made at the start and removed at the end
    #[arg(long, env = "GOMS_HTTP_SOCKET", value_name = "FILE")]
    pub http_socket: Option<PathBuf>,

    /// Be a gateway of Go Micro: paths name services of `--namespace` and their methods, and they get requests as `api`,
    /// `rpc`, `http`, `proxy`, `web` or `event` says
    #[arg(long, env = "GOMS_HANDLER", hide_short_help = true, value_name = "WORD", value_parser = super::names::handler)]
    pub handler: Option<crate::gateway::micro::Handler>,

    /// What `--namespace` says, where it is that of services of Go Micro.
    #[arg(skip)]
    pub micro_namespace: Option<String>,
}

/// Flags of a command that runs a trace consumer.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Spans of other programs")]
pub struct IntakeFlags {
    /// Take spans in OTLP over HTTP, there: a port, IP:PORT or `off` [default: off; alone: 4318]
    #[arg(
        long,
        env = "GOMS_OTLP",
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "on",
        value_parser = super::address::listen
    )]
    pub otlp: Option<Listen>,

    /// Take spans in Zipkin's JSON, there: a port, IP:PORT or `off` [default: off; alone: 9411]
    #[arg(
        long,
        env = "GOMS_ZIPKIN",
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "on",
        value_parser = super::address::listen
    )]
    pub zipkin: Option<Listen>,
}

/// Which registry was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryWord {
    /// Files of this machine.
    Local,
    /// etcd v3.
    Etcd,
    /// Inside this process.
    Memory,
    /// A Consul agent.
    Consul,
    /// Kubernetes' EndpointSlices.
    Kubernetes,
    /// Multicast DNS.
    Mdns,
    /// A file that someone else writes.
    Static,
}

const REGISTRIES: &[&str] = &["local", "etcd", "consul", "kubernetes", "mdns", "static", "memory"];

/// Reads the word of a registry.
///
/// # Errors
/// What is wrong with it, with the nearest word.
pub fn registry_word(text: &str) -> Result<RegistryWord, String> {
    match text {
        "local" => Ok(RegistryWord::Local),
        "etcd" | "etcdv3" => Ok(RegistryWord::Etcd), // as Go Micro's v1 calls it
        "memory" => Ok(RegistryWord::Memory),
        "consul" => Ok(RegistryWord::Consul),
        "kubernetes" | "k8s" => Ok(RegistryWord::Kubernetes),
        "static" => Ok(RegistryWord::Static),
        "mdns" => Ok(RegistryWord::Mdns),
        _ => Err(super::names::unknown("registry", text, REGISTRIES)),
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// More threads than this a process has no use for.
const MOST_WORKERS: usize = 1024;

fn workers(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number @ 1..=MOST_WORKERS) => Ok(number),
        _ => Err(format!("must be a number from 1 to {MOST_WORKERS}, got `{text}`")),
    }
}
