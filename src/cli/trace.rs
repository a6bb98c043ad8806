//! `goms trace`: what to look for.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::OutputArgs;
use crate::config::{parse_duration, parse_moment};
use crate::store;

/// `goms trace`.
#[derive(Clone, Debug, Subcommand)]
pub enum TraceCommand {
    /// Find events
    #[command(after_help = "Examples:
  goms trace search --service user --status 5xx --since 10m
  goms trace search --min-duration 500ms --order slowest
  goms trace search --url /api/user/login --since '2026-11-21 07:53' --until '2026-11-21 08:00'
  goms trace search --text 'alice' --output json

JSON: {total, events, next}; events are as stored (see `goms trace show --help`). The table groups them by request.")]
    Search(SearchArgs),
    /// Draw the timeline of one request
    #[command(after_help = "Examples:
  goms trace show 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e
  goms trace show 6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e --output json

JSON: an array of the request's events as stored: requestId, request {method, url, urlParam, clientIp, headers, body},
event, time, serviceName, serviceId, projectName, trace {timing}, eventId, traceId, spanId, parentId, status, node,
durationNs, timeMs. Events of Go nodes end with trace.")]
    Show(ShowArgs),
    /// Follow events as they are stored
    #[command(after_help = "Examples:
  goms trace tail
  goms trace tail --service user --event service.end

JSON: an event a line, as stored.")]
    Tail(TailArgs),
}

/// What to look for; every flag narrows.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Events of this service
    #[arg(long, env = "GOMS_TRACE_SERVICE", value_name = "NAME")]
    pub service: Option<String>,

    /// Events of this kind
    #[arg(long, env = "GOMS_TRACE_EVENT", value_name = "EVENT", value_parser = EVENTS)]
    pub event: Option<String>,

    /// HTTP status: `500`, `5xx` or `200-299`
    #[arg(long, env = "GOMS_TRACE_STATUS", value_name = "STATUS", value_parser = parse_status)]
    pub status: Option<StatusRange>,

    /// Took at least so long
    #[arg(long, env = "GOMS_TRACE_MIN_DURATION", value_name = "DURATION", value_parser = parse_duration)]
    pub min_duration: Option<Duration>,

    /// Words that all stand somewhere in the event
    #[arg(long, env = "GOMS_TRACE_TEXT", value_name = "WORDS")]
    pub text: Option<String>,

    /// Events of this node (ip:rpc_ip:http)
    #[arg(long, env = "GOMS_TRACE_NODE", value_name = "NODE")]
    pub node: Option<String>,

    /// Events of requests to this path
    #[arg(long, env = "GOMS_TRACE_URL", value_name = "PATH")]
    pub url: Option<String>,
}

/// `goms trace search`.
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// What to look for.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Not before: how long ago (`10m`), a local date or RFC 3339
    #[arg(long, env = "GOMS_TRACE_SINCE", value_name = "TIME", value_parser = moment)]
    pub since: Option<i64>,

    /// Before: how long ago (`10m`), a local date or RFC 3339
    #[arg(long, env = "GOMS_TRACE_UNTIL", value_name = "TIME", value_parser = moment)]
    pub until: Option<i64>,

    /// Which come first: `newest`, `oldest` or `slowest`
    #[arg(long, env = "GOMS_TRACE_ORDER", value_name = "ORDER", default_value = "newest", hide_possible_values = true)]
    pub order: OrderWord,

    /// At most so many events
    #[arg(long, env = "GOMS_TRACE_LIMIT", value_name = "N", default_value = "50", value_parser = parse_limit)]
    pub limit: usize,

    /// Form of what is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `goms trace show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The X-Request-Id of an answer
    #[arg(value_name = "REQUEST_ID")]
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

impl FilterArgs {
    /// The query for these, with [`SearchArgs`]' default limit.
    #[must_use]
    pub fn query(&self) -> store::Query {
        store::Query {
            service: self.service.clone(),
            node: self.node.clone(),
            event: self.event.clone(),
            url: self.url.clone(),
            status: self.status.map(|StatusRange(low, high)| (low, high)),
            min_duration_ns: self.min_duration.map(|least| u64::try_from(least.as_nanos()).unwrap_or(u64::MAX)),
            text: self.text.clone(),
            limit: DEFAULT_LIMIT,
            ..store::Query::default()
        }
    }
}

impl SearchArgs {
    /// The query for these.
    #[must_use]
    pub fn query(&self) -> store::Query {
        store::Query {
            since_ms: self.since,
            until_ms: self.until,
            order: self.order.into(),
            limit: self.limit,
            ..self.filter.query()
        }
    }
}

/// Lowest and highest status, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(pub u16, pub u16);

/// Which events come first, as a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OrderWord {
    /// Latest first.
    #[default]
    Newest,
    /// Earliest first.
    Oldest,
    /// Longest duration first.
    Slowest,
}

impl From<OrderWord> for store::Order {
    fn from(word: OrderWord) -> Self {
        match word {
            OrderWord::Newest => Self::Newest,
            OrderWord::Oldest => Self::Oldest,
            OrderWord::Slowest => Self::Slowest,
        }
    }
}

const EVENTS: [&str; 4] = ["request.start", "service.start", "service.end", "request.end"];
const DEFAULT_LIMIT: usize = 50;
const MOST_EVENTS: usize = 10_000; // of one page: `store::Query::limit`

fn parse_status(text: &str) -> Result<StatusRange, String> {
    let bad = || format!("`{text}` is no HTTP status; write `500`, `5xx` or `200-299`");
    let code = |part: &str| match part.trim().parse::<u16>() {
        Ok(code @ 100..=599) => Ok(code),
        _ => Err(bad()),
    };
    let lower = text.to_ascii_lowercase();
    if let Some(class) = lower.strip_suffix("xx") {
        let low = code(&format!("{class}00"))?;
        return Ok(StatusRange(low, low + 99));
    }
    match text.split_once('-') {
        Some((low, high)) => match (code(low)?, code(high)?) {
            (low, high) if low <= high => Ok(StatusRange(low, high)),
            _ => Err(format!("`{text}` holds no status: the lower one goes first")),
        },
        None => code(text).map(|code| StatusRange(code, code)),
    }
}

fn moment(text: &str) -> Result<i64, String> {
    parse_moment(text, &jiff::Zoned::now())
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=MOST_EVENTS) => Ok(limit),
        _ => Err(format!("must be a number from 1 to {MOST_EVENTS}, got `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ranges() {
        let cases = [("500", (500, 500)), ("5xx", (500, 599)), ("4XX", (400, 499)), ("200-299", (200, 299))];
        for (text, (low, high)) in cases {
            assert_eq!(parse_status(text), Ok(StatusRange(low, high)), "{text}");
        }
        for text in ["", "xx", "5x", "99", "600", "6xx", "0xx", "300-200", "-", "a-b", "5000xx"] {
            assert!(parse_status(text).is_err(), "{text}");
        }
    }
}
