//! `goms config`.

use clap::{Args, Subcommand};

use super::{OutputArgs, UpArgs};

/// `goms config`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the config is good; every fault with its line
    Check,
    /// Print the config that comes of file, variables and flags, without secrets
    Print(Box<UpArgs>),
    /// Say what another file changes in force, and what of it needs a restart; of secrets only call keys are compared
    Diff(DiffArgs),
    /// Print the JSON Schema of the file, for editors
    Schema,
}

/// `goms config diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// The file in force
    #[arg(value_name = "OLD")]
    pub old: std::path::PathBuf,

    /// The file that shall be
    #[arg(value_name = "NEW")]
    pub new: std::path::PathBuf,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}
