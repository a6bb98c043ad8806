//! The arguments of `goms explain`.

use clap::Args;

use super::OutputArgs;

/// `goms explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The method
    #[arg(value_name = "METHOD")]
    pub method: String,

    /// A path, or an address with a host
    #[arg(value_name = "URL")]
    pub url: String,

    /// A header field, `name: value`
    #[arg(short = 'H', long = "header", env = "GOMS_HEADER", value_name = "FIELD")]
    pub headers: Vec<String>,

    /// Show the routes of other paths too
    #[arg(long, env = "GOMS_ALL", value_parser = clap::builder::BoolishValueParser::new())]
    pub all: bool,

    /// Form of what is printed.
    #[command(flatten)]
    pub form: OutputArgs,
}
