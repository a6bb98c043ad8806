//! The command line: what `goms` can be told, and the exit codes.
//!
//! [`parse`] takes the arguments as they came (also in the originals' spelling) and gives a [`Cli`]. Flags that a service
//! author's own binary takes too are [`ServiceArgs`].
//!
//! May import: `config`, `store` (a search becomes its query), `reading` (its words), `service`.

mod call;
mod cluster;
mod config;
mod explain;
mod manual;
mod normalise;
mod roles;
mod trace;

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use crate::config::{CommonFlags, GatewayFlags, IntakeFlags, LogFormat, NodeFlags, RegistryWord};
pub use call::{CallArgs, RpcCommand, RpcDescribeArgs, RpcListArgs};
pub use cluster::{ClusterCommand, ServiceOutputArgs};
pub use config::{ConfigCommand, DiffArgs};
pub use explain::ExplainArgs;
pub use manual::{completions, manual, write_manual};
pub use normalise::normalise;
pub use roles::{ConsumerArgs, GatewayArgs, Restart, ServiceCommand, UpArgs, UpCommand};
pub use trace::{
    ExportArgs, ExportFormat, FilterArgs, GraphArgs, GraphForm, RangeArgs, SearchArgs, ShowArgs, StatsArgs, TailArgs,
    TraceCommand,
};

/// Everything went well (sysexits.h, as all of these).
pub const EXIT_OK: u8 = 0;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 64;
/// A server, port or node that was needed cannot be had now.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// The config makes no sense.
pub const EXIT_CONFIG: u8 = 78;

/// What `goms` was told.
#[derive(Debug, Parser)]
#[command(name = "goms", version, about, max_term_width = 110)]
#[command(after_help = "Examples:
  goms up                                            a whole cluster in one process
  goms gateway --http-port 8080 --rpc-port 8180      a gateway
  goms service user                                  a node of service `user`
  goms service shop --app http://127.0.0.1:5000 -- python3 shop.py
  goms cluster status
  goms trace search --service user --status 5xx --since 10m

Every flag can be given as a variable: --http-port is GOMS_HTTP_PORT. Flag over variable over config file.
Exit codes: 0 done, 64 bad command line, 69 something needed is not available, 78 bad config.")]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub common: CommonFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// With `--handler` a namespace is that of Go Micro's services, not that of nodes' keys.
    fn settle_namespace(&mut self) {
        let gateway = match &mut self.command {
            Command::Gateway(args) => &mut args.gateway,
            Command::Up(command) => &mut command.args.gateway,
            Command::Config { command: ConfigCommand::Print(args) } => &mut args.gateway,
            _ => return,
        };
        if gateway.handler.is_some() {
            gateway.micro_namespace = self.common.namespace.take();
        }
    }

    /// The node flags of the command; the defaults where it runs no node.
    #[must_use]
    pub fn node(&self) -> NodeFlags {
        match &self.command {
            Command::Gateway(args) => args.node.clone(),
            Command::Up(command) => command.args.node.clone(),
            Command::TraceConsumer(args) => args.node.clone(),
            Command::Service(args) => args.node.clone(),
            Command::Config { command: ConfigCommand::Print(args) } => args.node.clone(),
            _ => NodeFlags::default(),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster: a gateway, a trace consumer, and the services that the config's `up` names (else three demo nodes)
    #[command(after_help = "Examples:
  goms up
  goms up --config goms.yml                          a team's own services; goms.yml in this folder is found by itself
  goms up --follow 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e        nothing but the lines of one request
  goms up --http-port 9080 --rpc-port 9180
  goms up --http-port 0 --data-dir ./data
  goms up --otlp --zipkin                            takes spans of other programs too")]
    Up(Box<UpCommand>),

    /// Run a gateway node: `/api/<service>/<action>` to the services
    #[command(after_help = "Examples:
  goms gateway
  goms gateway --http-port 8080 --rpc-port 8180 --config config/cluster.yml
  goms gateway --https-port 443 --config config/config.yml      with the certificates of `tls`
  goms gateway --etcd-addr '10.0.0.1:2379|10.0.0.2:2379' --access-log")]
    Gateway(GatewayArgs),

    /// Run a node of a service: the demo service, or any program with --app
    #[command(after_help = "Examples:
  goms service user
  goms service user --http-port 9080 --rpc-port 9180
  goms service shop --app http://127.0.0.1:5000                        a program that runs already
  goms service shop --app http://127.0.0.1:5000 -- python3 shop.py     goms starts and stops it
  goms service shop --app http://127.0.0.1:5000 --watch shop.py -- python3 shop.py     and restarts it when it changes")]
    Service(ServiceCommand),

    /// Take trace events to the store; run as many as wanted
    #[command(after_help = "Examples:
  goms trace-consumer
  goms trace-consumer --config config/cluster.yml
  goms trace-consumer --otlp --zipkin                spans of other programs, on ports 4318 and 9411
  goms trace-consumer --otlp 127.0.0.1:4318")]
    TraceConsumer(ConsumerArgs),

    /// Read or steer the cluster
    #[command(after_help = "Examples:
  goms cluster status
  goms cluster nodes --output json
  goms cluster drain 127.0.0.1:9080                  no new requests for this node
  goms cluster drain 127.0.0.1:9080 --undo")]
    Cluster {
        /// What to do.
        #[command(subcommand)]
        command: ClusterCommand,
    },

    /// Read the traces
    #[command(after_help = "Examples:
  goms trace search --service user --status 5xx --since 10m
  goms trace show 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e
  goms trace tail --event request.end
  goms trace stats --since 1h --bucket 5m
  goms trace graph
  goms trace export --since 1h --format otlp --file traces.json")]
    Trace {
        /// What to do.
        #[command(subcommand)]
        command: TraceCommand,
    },

    /// Check the config, print what it comes to, or compare two
    #[command(after_help = "Examples:
  goms config check --config config/cluster.yml
  goms config print
  goms config diff /etc/goms/config.yml new.yml      what would change, and what of it needs a restart
  goms config schema > goms.schema.json              # yaml-language-server: $schema=goms.schema.json")]
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },

    /// Make a small service in Rust that runs and is tested
    #[command(after_help = "Examples:
  goms new shop
  goms new shop --goms ../goms                       with a checkout of goms

Makes the folder NAME with Cargo.toml, src/main.rs (two routes, a method by RPC, tests), goms.yml, README.md and .gitignore.")]
    New(NewArgs),

    /// Say which route takes a request, and why the others do not
    #[command(after_help = "Examples:
  goms explain GET /api/user/login
  goms explain GET https://shop.example.com/shop/7?v=1 -H 'x-beta: 1'
  goms explain DELETE /files/a --all --output json

Reads the config alone; nothing is sent. Exit code 69 where no route takes it.

JSON: {tried, outcome, error}. tried is an array of {name, path, refusal}, in the order of trying; refusal is null for the one
that takes it. outcome is {kind, services, target, status}, error what the client is told; one of them is null.")]
    Explain(ExplainArgs),

    /// Call a method of a service by RPC, or an action
    #[command(after_help = "Examples:
  goms call greeter Say.Hello --data '{\"name\": \"John\"}'
  goms call math Math.Sum --data '1 2 3'             a stream of messages
  goms call user/login --data '{\"username\": \"test\"}'

Prints each message of the answer on a line. Exit code 69 where the callee refuses or nobody answers.")]
    Call(CallArgs),

    /// Say which methods there are by RPC
    #[command(after_help = "Examples:
  goms rpc list
  goms rpc describe greeter")]
    Rpc {
        /// What to do.
        #[command(subcommand)]
        command: RpcCommand,
    },

    /// Say whether what the config names can be reached, and whether this machine is fit for a node
    #[command(after_help = "Examples:
  goms doctor
  goms doctor --config config/cluster.yml --output json

Looks at config, registry, RabbitMQ, trace store, clocks, ports, open files and data folder; changes nothing.
Exit code 69 where a part does not work.")]
    Doctor(OutputArgs),

    /// Print the completions of a shell
    #[command(after_help = "Examples:
  goms completions bash > ~/.local/share/bash-completion/completions/goms
  goms completions zsh > ~/.zfunc/_goms")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },

    /// Print the manual, or write a page for each command into a folder
    #[command(after_help = "Examples:
  goms man | man -l -
  goms man --dir ~/.local/share/man/man1")]
    Man {
        /// Where to write `goms.1`, `goms-gateway.1` and so on
        #[arg(long, env = "GOMS_MAN_DIR", value_name = "DIR")]
        dir: Option<std::path::PathBuf>,
    },

    /// Ask a node of this machine whether it is ready; exit 0 when it is, 69 when not
    #[command(after_help = "Examples:
  goms healthcheck
  goms healthcheck --admin-addr 127.0.0.1:9280")]
    Healthcheck {
        /// The node's admin address
        #[arg(
            long,
            env = "GOMS_ADMIN_ADDR",
            value_name = "IP:PORT",
            default_value = "127.0.0.1:8280",
            value_parser = crate::config::host_port
        )]
        admin_addr: String,
    },
}

/// `goms new`.
#[derive(Clone, Debug, Args)]
pub struct NewArgs {
    /// The service's name, and that of the folder that is made
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Depend on this checkout of goms instead of the released version
    #[arg(long, env = "GOMS_NEW_GOMS", value_name = "PATH")]
    pub goms: Option<std::path::PathBuf>,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// `--output` alone.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Form of what is printed: `table` or `json`
    #[arg(long, env = "GOMS_OUTPUT", value_name = "FORM", default_value = "table", hide_possible_values = true)]
    pub output: Output,
}

impl OutputArgs {
    /// Whether JSON was asked for.
    #[must_use]
    pub fn json(self) -> bool {
        self.output == Output::Json
    }
}

/// What a service author's own binary takes: the common flags and those of a node, no commands.
#[derive(Clone, Debug, Default, Parser)]
#[command(version, max_term_width = 110)]
pub struct ServiceArgs {
    /// Flags of every command.
    #[command(flatten)]
    pub common: CommonFlags,
    /// Flags of a running node.
    #[command(flatten)]
    pub node: NodeFlags,
}

impl ServiceArgs {
    /// Reads a service's own command line; help and version name the service and its version.
    ///
    /// # Errors
    /// What clap says, also for `--help` and `--version`; print it and end with [`exit_code`].
    pub fn parse_args(
        service: &str,
        version: &str,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let about = format!("Run a node of service `{service}` in a goms cluster");
        let named = Self::command().name(service.to_owned()).version(version.to_owned());
        let command = compact(named.about(about.clone()).long_about(about));
        let args = normalise(&command, args);
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}

/// Reads the command line of `goms`, its own name first.
///
/// # Errors
/// What clap says, also for `--help` and `--version`; print it and end with [`exit_code`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let command = command();
    let args = normalise(&command, args);
    let mut cli = Cli::from_arg_matches(&command.try_get_matches_from(args)?)?;
    cli.settle_namespace();
    Ok(cli)
}

/// The whole command line of `goms`, for parsing, help and completions.
#[must_use]
pub fn command() -> clap::Command {
    compact(Cli::command())
}

/// Names the variables in the help without their values, and lets `goms gateway --version` say `goms` too.
fn compact(command: clap::Command) -> clap::Command {
    let name = command.get_name().to_owned();
    compact_under(command.propagate_version(true), &name)
}

fn compact_under(command: clap::Command, name: &str) -> clap::Command {
    command
        .display_name(name.to_owned())
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(|inner| compact_under(inner, name))
}

/// The exit code for a command line that was not run: 0 for help and version, otherwise [`EXIT_USAGE`].
#[must_use]
pub fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { EXIT_USAGE } else { EXIT_OK }
}

#[cfg(test)]
mod tests;
