//! `goms trace`: what to look for, and in which form.

mod export;
mod filter;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

pub use export::{ExportArgs, ExportFormat};
pub use filter::{FilterArgs, OrderWord, RangeArgs};

use super::OutputArgs;
use crate::config::parse_positive_duration;
use crate::store::{self, GroupBy, MAX_LIMIT};

/// `goms trace`.
#[derive(Clone, Debug, Subcommand)]
pub enum TraceCommand {
    /// Find events
    #[command(after_help = "Examples:
  goms trace search --service user --status 5xx --since 10m
  goms trace search --action user/login --min-duration 500ms --order slowest
  goms trace search --url /api/user/login --since '2026-11-21 07:53' --until '2026-11-21 08:00'
  goms trace search --text 'alice' --output json
  goms trace search --limit 100 --after n:1795247767123:0d5f…     the page behind one that ended so

JSON: {total, events, next}; events are as stored (see `goms trace show --help`). The table groups them by request.
For more than 10,000 events take `goms trace export`.")]
    Search(SearchArgs),
    /// Draw the timeline of one request
    #[command(after_help = "Examples:
  goms trace show 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e
  goms trace show 6f1c9a522f0e4b6b9d0e0f6a3c1d2b4e             by trace id
  goms trace show 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e --output json

Shown are the events of the request and all others of its trace, each span below the one that called it.

JSON: an array of these events as stored: requestId, request {method, url, urlParam, clientIp, headers, body},
event, time, serviceName, serviceId, projectName, trace {timing}, eventId, traceId, spanId, parentId, status, node,
durationNs, timeMs, action, caller. Events of Go nodes lack some of them.")]
    Show(ShowArgs),
    /// Follow events as they are stored
    #[command(after_help = "Examples:
  goms trace tail
  goms trace tail --service user --event service.end
  goms trace tail --status 5xx

JSON: an event a line, as stored. Shown is what happens after the start; each event once.")]
    Tail(TailArgs),
    /// Count requests, errors and durations, a line for each service
    #[command(after_help = "Examples:
  goms trace stats
  goms trace stats --since 24h --bucket 1h --service user
  goms trace stats --action user/login --since 10m
  goms trace stats --by edge --output json

Counted are the requests that a node answered (request.end, service.end); errors are those with status 500 and above.
JSON: {firstMs, lastMs, groups: [{caller, service, total, buckets}]}; total is {count, errors, p50Ns, p95Ns, p99Ns}, and
each of buckets the same with startMs. caller is null for a client from outside, and without `--by edge`.")]
    Stats(StatsArgs),
    /// Show who calls whom, how often, how well and how fast
    #[command(after_help = "Examples:
  goms trace graph
  goms trace graph --since 24h
  goms trace graph --output dot | dot -Tsvg > graph.svg          draw it with Graphviz
  goms trace graph --output mermaid                              for a Markdown page

JSON: as of `goms trace stats --by edge`.")]
    Graph(GraphArgs),
    /// Write traces for other tools: OTLP, HAR or curl
    #[command(after_help = "Examples:
  goms trace export 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e --format curl
  goms trace export --since 1h --format otlp --file traces.json
  goms trace export --status 5xx --since 24h --format har --file errors.har

otlp: an OTLP JSON document (ExportTraceServiceRequest), a span for each pair of events, for any OpenTelemetry collector.
har:  HTTP Archive 1.2 of the requests at the gateway, for a browser's network view. Answers are not recorded: their
      headers and bodies are empty, their sizes -1.
curl: a command a request that sends it again; what was redacted or not recorded is noted above it.

All that match are written, in order of time, however many; the range ends when the command starts.")]
    Export(ExportArgs),
}

/// `goms trace search`.
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// What to look for.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// When.
    #[command(flatten)]
    pub range: RangeArgs,

    /// Which come first: `newest`, `oldest` or `slowest`
    #[arg(long, env = "GOMS_TRACE_ORDER", value_name = "ORDER", default_value = "newest", hide_possible_values = true)]
    pub order: OrderWord,

    /// At most so many events, 10,000 at most
    #[arg(long, env = "GOMS_TRACE_LIMIT", value_name = "N", default_value = "50", value_parser = parse_limit)]
    pub limit: usize,

    /// Go on where a page ended: the `next` of its JSON
    #[arg(long, env = "GOMS_TRACE_AFTER", value_name = "NEXT")]
    pub after: Option<String>,

    /// Form of what is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl SearchArgs {
    /// The query for these.
    #[must_use]
    pub fn query(&self) -> store::Query {
        store::Query {
            since_ms: self.range.since,
            until_ms: self.range.until,
            order: self.order.into(),
            limit: self.limit,
            after: self.after.clone(),
            ..self.filter.query()
        }
    }
}

/// `goms trace show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The X-Request-Id of an answer, or a trace id (32 hex digits)
    #[arg(value_name = "ID")]
    pub id: String,

    /// Form of what is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `goms trace tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// What to follow.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Form of what is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `goms trace stats`.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// What to count.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// When [default: since 1h].
    #[command(flatten)]
    pub range: RangeArgs,

    /// Also count each stretch of this length by itself: `1m`, `1h`
    #[arg(long, env = "GOMS_TRACE_BUCKET", value_name = "DURATION", value_parser = parse_positive_duration)]
    pub bucket: Option<Duration>,

    /// A line for each `service`, or for each `edge`: who called and who answered
    #[arg(long, env = "GOMS_TRACE_BY", value_name = "WORD", default_value = "service", hide_possible_values = true)]
    pub by: GroupWord,

    /// Form of what is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `goms trace graph`.
#[derive(Clone, Debug, Args)]
pub struct GraphArgs {
    /// Which requests.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// When [default: since 1h].
    #[command(flatten)]
    pub range: RangeArgs,

    /// Form of what is printed: `table`, `json`, `dot` or `mermaid`
    #[arg(long, env = "GOMS_OUTPUT", value_name = "FORM", default_value = "table", hide_possible_values = true)]
    pub output: GraphForm,
}

/// The form of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphForm {
    /// A tree for people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown pages.
    Mermaid,
}

/// What makes a line of the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GroupWord {
    /// The service that answered.
    #[default]
    Service,
    /// Who called and who answered.
    Edge,
}

impl From<GroupWord> for GroupBy {
    fn from(word: GroupWord) -> Self {
        match word {
            GroupWord::Service => Self::Service,
            GroupWord::Edge => Self::Edge,
        }
    }
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
        _ => Err(format!("must be a number from 1 to {MAX_LIMIT}, got `{text}`; `goms trace export` gives all")),
    }
}
