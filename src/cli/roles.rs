//! The commands that run a role: their flags.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

use super::{GatewayFlags, IntakeFlags, NodeFlags};

/// Node flags and those of a gateway.
#[derive(Clone, Debug, Default, Args)]
pub struct GatewayArgs {
    /// Flags of a running node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Its doors.
    #[command(flatten)]
    pub gateway: GatewayFlags,
}

/// Flags of a whole cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct UpArgs {
    /// Flags of a running node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// The gateway's doors.
    #[command(flatten)]
    pub gateway: GatewayFlags,
    /// Where it takes spans of other programs.
    #[command(flatten)]
    pub intake: IntakeFlags,
}

/// `goms up`.
#[derive(Clone, Debug, Default, Args)]
pub struct UpCommand {
    /// Flags of the cluster.
    #[command(flatten)]
    pub args: UpArgs,

    /// Print only lines that name this request: the UUID that a client sends as `X-Request-Id`
    #[arg(long, env = "GOMS_FOLLOW", value_name = "ID")]
    pub follow: Option<uuid::Uuid>,
}

/// Node flags and those of a trace consumer.
#[derive(Clone, Debug, Default, Args)]
pub struct ConsumerArgs {
    /// Flags of a running node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Where it takes spans of other programs.
    #[command(flatten)]
    pub intake: IntakeFlags,
}

/// `goms service`.
#[derive(Clone, Debug, Args)]
pub struct ServiceCommand {
    /// The service's name
    #[arg(value_name = "NAME", value_parser = crate::config::service_name)]
    pub name: String,

    /// Register under another name than NAME
    #[arg(long = "name", id = "registered_name", env = "GOMS_NAME", hide_short_help = true, value_name = "NAME", value_parser = crate::config::service_name)]
    pub registered_name: Option<String>,

    /// Tell this node of the greeter from others: its answers show it
    #[arg(long, env = "GOMS_LABEL", hide_short_help = true, value_name = "TEXT")]
    pub label: Option<String>,

    /// Put goms in front of the program that listens here
    #[arg(long, env = "GOMS_APP", value_name = "URL", value_parser = crate::config::app_url)]
    pub app: Option<url::Url>,

    /// The path at which the program serves its OpenAPI document, for the dashboard's: `/openapi.json`
    #[arg(long, env = "GOMS_OPENAPI", value_name = "PATH", requires = "app", value_parser = crate::config::own_path)]
    pub openapi: Option<String>,

    /// When to start the program again that ended: `never`, `on-failure` or `always`
    #[arg(long, env = "GOMS_RESTART", value_name = "WHEN", default_value = "on-failure", hide_possible_values = true)]
    pub restart: Restart,

    /// Restart the program when this file, or one in this folder, changes; may be given several times
    #[arg(long, env = "GOMS_WATCH", value_name = "PATH", value_delimiter = ',', requires = "program")]
    pub watch: Vec<std::path::PathBuf>,

    /// The program to start, after `--`; needs --app
    #[arg(last = true, value_name = "CMD", requires = "app")]
    pub program: Vec<OsString>,

    /// Flags of a running node.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// When a program that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Not at all.
    Never,
    /// When it failed.
    #[default]
    OnFailure,
    /// Whenever it ended.
    Always,
}
