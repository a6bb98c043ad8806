//! Which events: flags that every reading of traces takes.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{parse_duration, parse_moment};
use crate::reading::{EVENTS, StatusRange, parse_status, parse_trace_id};
use crate::store;

/// What to look for; every flag narrows.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Events of this service
    #[arg(long, env = "GOMS_TRACE_SERVICE", value_name = "NAME")]
    pub service: Option<String>,

    /// Events of this action: `user/login`
    #[arg(long, env = "GOMS_TRACE_ACTION", value_name = "ACTION")]
    pub action: Option<String>,

    /// Events of calls by this service
    #[arg(long, env = "GOMS_TRACE_CALLER", value_name = "NAME")]
    pub caller: Option<String>,

    /// Events of this kind: `request.start`, `request.end`, `service.start`, `service.end` or `span.end`
    #[arg(long, env = "GOMS_TRACE_EVENT", value_name = "EVENT", value_parser = EVENTS, hide_possible_values = true)]
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

    /// Events of this request
    #[arg(long, env = "GOMS_TRACE_REQUEST_ID", value_name = "UUID")]
    pub request_id: Option<String>,

    /// Events of this trace (32 hex digits)
    #[arg(long, env = "GOMS_TRACE_TRACE_ID", value_name = "HEX", value_parser = parse_trace_id)]
    pub trace_id: Option<String>,
}

/// Which time.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct RangeArgs {
    /// Not before: how long ago (`10m`), a local date or RFC 3339
    #[arg(long, env = "GOMS_TRACE_SINCE", value_name = "TIME", value_parser = moment)]
    pub since: Option<i64>,

    /// Before: how long ago (`10m`), a local date or RFC 3339
    #[arg(long, env = "GOMS_TRACE_UNTIL", value_name = "TIME", value_parser = moment)]
    pub until: Option<i64>,
}

impl FilterArgs {
    /// The query for these: everything else is as of [`store::Query::default`].
    #[must_use]
    pub fn query(&self) -> store::Query {
        store::Query {
            request_id: self.request_id.clone(),
            trace_id: self.trace_id.clone(),
            service: self.service.clone(),
            node: self.node.clone(),
            event: self.event.clone(),
            url: self.url.clone(),
            action: self.action.clone(),
            caller: self.caller.clone(),
            status: self.status.map(|StatusRange(low, high)| (low, high)),
            min_duration_ns: self.min_duration.map(|least| u64::try_from(least.as_nanos()).unwrap_or(u64::MAX)),
            text: self.text.clone(),
            ..store::Query::default()
        }
    }
}

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

fn moment(text: &str) -> Result<i64, String> {
    parse_moment(text, &jiff::Zoned::now())
}
