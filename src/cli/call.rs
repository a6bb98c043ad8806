//! The arguments of `goms call` and `goms rpc`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// `goms call`.
#[derive(Clone, Debug, Args)]
pub struct CallArgs {
    /// A service, or `service/action` for an action of the config
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// The method by RPC: `Say.Hello`, or in full `/greeter.Say/Hello`
    #[arg(value_name = "METHOD")]
    pub method: Option<String>,

    /// The message: JSON. Several, one behind the other, are a stream; `-` reads them from stdin
    #[arg(short, long, env = "GOMS_DATA", value_name = "JSON", default_value = "{}")]
    pub data: String,

    /// Metadata, `name: value`
    #[arg(short = 'H', long = "header", env = "GOMS_HEADER", value_name = "FIELD")]
    pub headers: Vec<String>,

    /// How long the answer may take
    #[arg(long, env = "GOMS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = crate::config::parse_positive_duration)]
    pub timeout: Duration,
}

/// `goms rpc`.
#[derive(Clone, Debug, Subcommand)]
pub enum RpcCommand {
    /// The services that take RPC, and their methods
    List(RpcListArgs),
    /// A service's methods: paths, and who serves them
    Describe(RpcDescribeArgs),
}

/// `goms rpc list`.
#[derive(Clone, Debug, Args)]
pub struct RpcListArgs {
    /// Form of what is printed.
    #[command(flatten)]
    pub form: OutputArgs,
}

/// `goms rpc describe`.
#[derive(Clone, Debug, Args)]
pub struct RpcDescribeArgs {
    /// A service
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// Form of what is printed.
    #[command(flatten)]
    pub form: OutputArgs,
}
