//! `goms trace export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use url::Url;

use super::{FilterArgs, RangeArgs};
use crate::reading::export::Format;

/// `goms trace export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Only this request or trace: an X-Request-Id, or a trace id (32 hex digits)
    #[arg(value_name = "ID", conflicts_with_all = ["request_id", "trace_id"])]
    pub id: Option<String>,

    /// What to write: `otlp`, `har` or `curl`
    #[arg(long, env = "GOMS_TRACE_FORMAT", value_name = "FORMAT", hide_possible_values = true)]
    pub format: ExportFormat,

    /// Where to write it [default: stdout]
    #[arg(long, env = "GOMS_TRACE_FILE", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Where the requests of `har` and `curl` go [default: the node that recorded them]
    #[arg(long, env = "GOMS_TRACE_BASE_URL", value_name = "URL", value_parser = base_url)]
    pub base_url: Option<String>,

    /// What to export.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// When.
    #[command(flatten)]
    pub range: RangeArgs,
}

/// What other tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// OpenTelemetry's JSON.
    Otlp,
    /// HTTP Archive 1.2.
    Har,
    /// Shell commands.
    Curl,
}

impl From<ExportFormat> for Format {
    fn from(word: ExportFormat) -> Self {
        match word {
            ExportFormat::Otlp => Self::Otlp,
            ExportFormat::Har => Self::Har,
            ExportFormat::Curl => Self::Curl,
        }
    }
}

/// Without a slash at the end, so that a path follows.
fn base_url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        _ => Err(format!("`{text}` is no address; write for example `http://127.0.0.1:8080`")),
    }
}
