//! WHAT THE USER SAID: raw file + environment + flags → a [`Config`] that cannot be wrong.
//!
//! May import: every room's settings; is imported by `app`, `cli` and `main` only.
//!
//! `yaml` makes a tree that knows its lines → `decode` walks it and collects every fault → `resolve` puts file, flags
//! and environment together. Flag over variable over file over default.

mod address;
mod flags;
mod names;
mod units;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use address::{app_url, host_port};
pub use flags::{CommonFlags, LogFormat, NodeFlags, RegistryWord};
pub use names::service_name;
pub use units::{format_duration, parse_duration, parse_moment, parse_positive_duration, parse_size};

use crate::{consumer, gateway, registry, store, trace};

/// Everything a process of goms needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` is the built-in config.
    pub file: Option<PathBuf>,
    /// How nodes find each other.
    pub registry: registry::Settings,
    /// How long to wait at the start for a registry that is away.
    pub registry_wait: Duration,
    /// What is recorded of requests, and where it goes.
    pub trace: trace::Settings,
    /// Where it is kept.
    pub store: store::Settings,
    /// How it gets there.
    pub consumer: consumer::Settings,
    /// What a gateway serves.
    pub gateway: gateway::Settings,
    /// The first signs calls, all are accepted; empty: no guard.
    pub call_keys: Vec<String>,
    /// Ports and the like.
    pub node: NodeSettings,
    /// Where traces and spools are kept.
    pub data_dir: PathBuf,
    /// Where the local registry is kept.
    pub runtime_dir: PathBuf,
    /// What is logged and how.
    pub log: LogSettings,
}

/// What a running node was told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Port for HTTP; `None`: the role's default; 0: any.
    pub http_port: Option<u16>,
    /// Port for RPC; as above.
    pub rpc_port: Option<u16>,
    /// Admin port; `None`: RPC port + 100.
    pub admin_port: Option<u16>,
    /// What the admin port binds: 127.0.0.1.
    pub admin_bind: IpAddr,
    /// What the other ports bind: 0.0.0.0. `up` binds 127.0.0.1 unless [`NodeSettings::bind_given`].
    pub bind: IpAddr,
    /// Whether `bind` was asked for.
    pub bind_given: bool,
    /// What other nodes call this one by; `None`: found out.
    pub advertise_ip: Option<IpAddr>,
    /// Worker threads.
    pub workers: usize,
    /// How long requests in flight may take at the end.
    pub drain_timeout: Duration,
    /// Print one line a request; `None`: as the role does by default.
    pub access_log: Option<bool>,
    /// The service's version.
    pub version: String,
    /// Where the node stands; empty: not said.
    pub zone: String,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// 0 is info, 1 debug, 2 trace, -1 warnings, -2 errors.
    pub verbosity: i8,
}
