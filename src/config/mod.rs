//! WHAT THE USER SAID: raw file + environment + flags → a [`Config`] that cannot be wrong.
//!
//! May import: every room's settings; is imported by `app`, `cli` and `main` only.
//!
//! `yaml` makes a tree that knows its lines → `decode` walks it and collects every fault → `resolve` puts file, flags
//! and environment together. Flag over variable over file over default.

mod address;
mod admin;
mod auth;
mod broker;
mod callers;
mod compress;
mod cors;
mod decode;
mod diff;
mod environment;
mod fault;
mod faults;
mod flags;
mod names;
mod origins;
mod policy;
mod print;
mod print_routes;
mod print_terms;
mod rate;
mod raw;
mod registry;
mod registry_backend;
mod resolve;
mod routes;
mod schema;
mod sections;
mod shares;
mod terms;
mod tls;
mod up;
mod upstream;
mod values;
mod yaml;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{Listen, app_url, host_port, own_path};
pub use broker::BrokerWord;
pub use diff::Change;
pub use fault::{ConfigErrors, Fault};
pub use flags::{CommonFlags, GatewayFlags, GoMicroProtocol, IntakeFlags, LogFormat, NodeFlags, RegistryWord};
pub use names::service_name;
pub use print_routes::routes as shown_routes;
pub use units::{format_duration, parse_duration, parse_moment, parse_positive_duration, parse_size};
pub use up::{UpApp, UpService, UpSettings};

use crate::balance::Selector;
use crate::call_key::CallKeys;
use crate::gateway::micro::Micro;
use crate::listener::{TlsSettings, ToHttps};
use crate::units;
use crate::{consumer, gateway, store, trace};

/// Everything a process of goms needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` is the built-in config.
    pub file: Option<PathBuf>,
    /// How nodes find each other.
    pub registry: crate::registry::Settings,
    /// How long to wait at the start for a registry that is away.
    pub registry_wait: Duration,
    /// The same for a command that only reads or steers.
    pub read_wait: Duration,
    /// What is recorded of requests, and where it goes.
    pub trace: trace::Settings,
    /// Where it is kept.
    pub store: store::Settings,
    /// How it gets there.
    pub consumer: consumer::Settings,
    /// Where it takes spans of other programs.
    pub spans: SpanSettings,
    /// Where services leave messages for each other.
    pub broker: crate::broker::Settings,
    /// Who services are on their RPC ports; `None`: those take no TLS.
    pub service_tls: Option<TlsSettings>,
    /// What a gateway serves.
    pub gateway: gateway::Settings,
    /// Who may see the admin port's pages.
    pub login: crate::dashboard::Login,
    /// The first signs calls, all are accepted; empty: no guard.
    pub call_keys: CallKeys,
    /// How a node is chosen of a service that `gateway` does not name.
    pub selector: Selector,
    /// Ports and the like.
    pub node: NodeSettings,
    /// Where traces and spools are kept.
    pub data_dir: PathBuf,
    /// Where the local registry is kept.
    pub runtime_dir: PathBuf,
    /// What is logged and how.
    pub log: LogSettings,
    /// What `goms up` runs.
    pub up: UpSettings,
}

/// What a running node was told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Port for HTTP; `None`: the role's default; 0: any.
    pub http_port: Option<u16>,
    /// A gateway's port for HTTPS; `None`: 8443; 0: any.
    pub https_port: Option<u16>,
    /// What that binds; `None`: as the others.
    pub https_bind: Option<IpAddr>,
    /// A gateway's Unix socket.
    pub http_socket: Option<PathBuf>,
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
    /// The name under which a service registers; `None`: its own.
    pub service_name: Option<String>,
    /// The service's version.
    pub version: String,
    /// Where the node stands; empty: not said.
    pub zone: String,
    /// Its share of the requests beside the other nodes of its service.
    pub weight: u32,
    /// How nodes of Go Micro are to call it.
    pub go_micro_protocol: GoMicroProtocol,
}

/// Where a trace consumer takes spans of other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanSettings {
    /// OTLP over HTTP; its own port is 4318.
    pub otlp: Listen,
    /// Zipkin's JSON; its own port is 9411.
    pub zipkin: Listen,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// 0 is info, 1 debug, 2 trace, -1 warnings, -2 errors.
    pub verbosity: i8,
}

/// What is looked for, in this order, when no file is named. The first is a team's own, in the folder of its services.
pub const DEFAULT_FILES: [&str; 2] = ["goms.yml", "config/config.yml"];

/// What applies when there is no file.
const BUILT_IN: &str = "services:
  user: { register: /register, login: /login }
  order: { submit: /order/submit }
";

/// What stands before the names of a Go Micro gateway's services.
pub(super) const MICRO_NAMESPACE: &str = "go.micro.api";

/// Far over any config; keeps a mistaken `--config big.iso` out of memory.
const MOST_BYTES: u64 = 4 << 20;

impl Config {
    /// Reads the file that the flags name (or the first of [`DEFAULT_FILES`], or else the built-in config), and puts flags and
    /// environment over it. A command that runs no node passes default node flags.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn load(common: &CommonFlags, node: &NodeFlags) -> Result<Self, ConfigErrors> {
        let file = match &common.config {
            Some(path) => Some(path.clone()),
            None => DEFAULT_FILES.map(PathBuf::from).into_iter().find(|path| path.try_exists().unwrap_or(true)),
        };
        let text = match &file {
            Some(path) => read(path)?,
            None => BUILT_IN.to_owned(),
        };
        Self::assemble(file, &text, common, node)
    }

    /// As [`Config::load`], from a text instead of a file; `name` stands for it in messages.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn parse(name: &str, text: &str, common: &CommonFlags, node: &NodeFlags) -> Result<Self, ConfigErrors> {
        Self::assemble(Some(PathBuf::from(name)), text, common, node)
    }

    fn assemble(
        file: Option<PathBuf>,
        text: &str,
        common: &CommonFlags,
        node: &NodeFlags,
    ) -> Result<Self, ConfigErrors> {
        let name = file.as_ref().map_or_else(|| "built-in config".to_owned(), |path| path.display().to_string());
        let root =
            yaml::parse(text).map_err(|problem| ConfigErrors::one(&name, Some(problem.line), problem.message))?;
        let mut decoder = decode::Decoder::new(&name);
        let raw = decoder.file(&decode::Field::root(&root));
        let common = &environment::go_micro(&mut decoder, common);
        let folders = environment::Folders::of_this_process();
        let mut config = resolve::resolve(&mut decoder, file, raw, common, node, folders);
        config.trace.otlp = environment::otlp(&mut decoder);
        let mut faults = decoder.faults;
        if faults.is_empty() {
            return Ok(config);
        }
        faults.sort_by_key(|fault| fault.line);
        Err(ConfigErrors { faults })
    }

    /// Puts the flags of a command that runs a trace consumer over it.
    #[must_use]
    pub fn with_intake(mut self, flags: &IntakeFlags) -> Self {
        self.spans.otlp = flags.otlp.unwrap_or(self.spans.otlp);
        self.spans.zipkin = flags.zipkin.unwrap_or(self.spans.zipkin);
        self
    }

    /// Puts the flags of a command that runs a gateway over it.
    ///
    /// # Errors
    /// When there is an HTTPS port and no certificate for it.
    pub fn with_gateway(mut self, flags: &GatewayFlags) -> Result<Self, ConfigErrors> {
        if flags.https_port.is_some() && self.gateway.tls.is_none() {
            let message = "needs certificates; write `tls: { certificates: [{ cert: site.pem, key: site-key.pem }] }` into the config";
            return Err(ConfigErrors::flag("--https-port", message));
        }
        if let Some(handler) = flags.handler {
            let of_file = self.gateway.micro.take().map(|micro| micro.namespace);
            let namespace = flags.micro_namespace.clone().or(of_file).unwrap_or_else(|| MICRO_NAMESPACE.to_owned());
            self.gateway.micro = Some(Micro::new(handler, &namespace));
        }
        if let (Some(tls), Some(port)) = (&mut self.gateway.tls, flags.https_port)
            && tls.redirect == Some(ToHttps::Own)
        {
            if port == 0 {
                let message = "is any free one, which `tls.redirectToHttps: true` cannot know; write the port that clients see there";
                return Err(ConfigErrors::flag("--https-port", message));
            }
            tls.redirect = Some(ToHttps::Port(port));
        }
        self.node.https_port = flags.https_port;
        self.node.https_bind = flags.https_bind;
        self.node.http_socket.clone_from(&flags.http_socket);
        Ok(self)
    }

    /// That the files of `tls` and `serviceTls` can be used.
    ///
    /// # Errors
    /// What is wrong with the first that cannot.
    pub fn check_certificates(&self) -> Result<(), ConfigErrors> {
        self.check_files("tls", self.gateway.tls.as_ref())?;
        self.check_files("serviceTls", self.service_tls.as_ref())
    }

    fn check_files(&self, key: &str, tls: Option<&TlsSettings>) -> Result<(), ConfigErrors> {
        let name = self.file.as_ref().map_or_else(String::new, |file| file.display().to_string());
        let fault = |error| ConfigErrors::one(&name, None, format!("{key}: {}", crate::causes::chain(&error)));
        tls.map_or(Ok(()), TlsSettings::check).map_err(fault)
    }

    /// That there is something for a gateway to serve, and that it can use its own certificates; other roles do without
    /// `services`, and those of services may be on other hosts.
    ///
    /// # Errors
    /// That there is not, and what to write.
    pub fn for_gateway(&self) -> Result<(), ConfigErrors> {
        match &self.file {
            Some(path) if self.gateway.rules().is_empty() => Err(ConfigErrors::one(
                &path.display().to_string(),
                None,
                "a gateway needs `services` or `routes`; write for example `services: { user: { login: /login } }`"
                    .to_owned(),
            )),
            _ => self.check_files("tls", self.gateway.tls.as_ref()),
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let name = path.display().to_string();
    let fail = |line, message| ConfigErrors::one(&name, line, message);
    let size = std::fs::metadata(path).map_err(|error| fail(None, format!("cannot read the config: {error}")))?.len();
    if size > MOST_BYTES {
        return Err(fail(None, format!("a config has at most {MOST_BYTES} bytes, this one has {size}")));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(None, format!("cannot read the config: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        fail(Some(line), "is no UTF-8 text".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_config_is_the_demo() {
        let config = Config::assemble(None, BUILT_IN, &CommonFlags::default(), &NodeFlags::default()).expect("good");
        let path = |service: &str, action: &str| config.gateway.services[service].actions[action].path.clone();
        assert_eq!([path("user", "register"), path("user", "login")], ["/register", "/login"]);
        assert_eq!(path("order", "submit"), "/order/submit");
        assert_eq!(config.gateway.services.len(), 2);
        assert!(config.for_gateway().is_ok() && config.call_keys.is_empty() && config.file.is_none());
    }
}
