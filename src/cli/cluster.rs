//! The arguments of `goms cluster`.

use clap::{Args, Subcommand};

use super::OutputArgs;

/// `goms cluster`.
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Services and nodes with age, version, requests in flight and answered
    #[command(after_help = "Examples:
  goms cluster status
  goms cluster status user --output json

JSON: an array of {service, node, state, version, zone, startedMs, admin, inFlight, answered}; inFlight and answered are
null when the node's admin port cannot be reached from here. Later versions may add fields, not change these.")]
    Status(ServiceOutputArgs),
    /// Every node
    #[command(after_help = "Examples:
  goms cluster nodes
  goms cluster nodes user --output json

JSON: as of `goms cluster status`.")]
    Nodes(ServiceOutputArgs),
    /// Every service
    #[command(after_help = "JSON: an array of {service, nodes, ready, versions}; versions is an array of text.")]
    Services(OutputArgs),
    /// The routes that the gateways have in force, in the order in which they are tried
    #[command(after_help = "Examples:
  goms cluster routes
  goms cluster routes --output json

Asks the admin ports of the gateways, so it shows what a reload put in force. `goms explain` says which route takes a request.

JSON: an array of {gateway, routes}; routes as in the config, with every policy.")]
    Routes(OutputArgs),
    /// The call keys of every node, and when callers last used each
    #[command(after_help = "A key shows as the first digits of its SHA-256: echo -n KEY | sha256sum | cut -c1-12. A
gateway signs with the first key of its config and is called with none. Uses count since the
start of each process; nodes of one process count together.

JSON: an array of {service, node, admin, keys}; keys is an array of {fingerprint, signs,
accepted, lastUsedMs}, or null when the node's admin port cannot be reached from here.")]
    Keys(OutputArgs),
    /// Nodes that join, leave and drain, as it happens
    #[command(
        after_help = "JSON: an object a line, {timeMs, service, node, change}; change is join, leave, ready, draining or stale."
    )]
    Watch(OutputArgs),
    /// Take a node out of rotation
    #[command(after_help = "Examples:
  goms cluster drain 127.0.0.1:9080
  goms cluster drain user/127.0.0.1:9180_127.0.0.1:9080 --undo")]
    Drain {
        /// The node: its HTTP or RPC address, or ip:rpc_ip:http; `service/` before it where several have it
        #[arg(value_name = "NODE")]
        node: String,
        /// Put it back
        #[arg(long, env = "GOMS_UNDO", value_parser = clap::builder::BoolishValueParser::new())]
        undo: bool,
    },
}

/// One service or all, and `--output`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServiceOutputArgs {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,

    /// Form of what is printed.
    #[command(flatten)]
    pub form: OutputArgs,
}
