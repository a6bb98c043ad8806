//! `goms trace`: reads events from whichever store the config names; a file a command.

mod export;
mod graph;
mod search;
mod show;
mod source;
mod stats;
mod tail;
mod timeline;

pub use self::source::of_process;

use super::AppError;
use crate::cli::{RangeArgs, TraceCommand};
use crate::config::Config;
use crate::figures::{duration, grouped};
use crate::reading::{Shown, printable};
use crate::store::StoreError;

/// What `stats` and `graph` count where `--since` does not say.
const DEFAULT_RANGE_MS: i64 = 3_600_000;

/// Runs one `goms trace` command.
///
/// # Errors
/// [`AppError::Unavailable`] when there is no store to read or nothing is known of the request; [`AppError::Usage`] for
/// a range or bucket that makes no sense.
pub async fn run(config: &Config, command: TraceCommand) -> Result<(), AppError> {
    // before a store is looked for, which takes a moment
    match &command {
        TraceCommand::Search(args) => check(args.range)?,
        TraceCommand::Stats(args) => check(args.range)?,
        TraceCommand::Graph(args) => check(args.range)?,
        TraceCommand::Export(args) => check(args.range)?,
        TraceCommand::Show(_) | TraceCommand::Tail(_) => {}
    }
    let store = source::open(config).await?;
    match command {
        TraceCommand::Search(args) => search::run(&*store, &args).await,
        TraceCommand::Show(args) => show::run(&*store, &args).await,
        TraceCommand::Tail(args) => tail::run(config, store, &args).await,
        TraceCommand::Stats(args) => stats::run(&*store, &args).await,
        TraceCommand::Graph(args) => graph::run(&*store, &args).await,
        TraceCommand::Export(args) => export::run(&*store, &args).await,
    }
}

fn check(range: RangeArgs) -> Result<(), AppError> {
    match (range.since, range.until) {
        (Some(since), Some(until)) if since >= until => Err(AppError::Usage(
            "`--since` must be before `--until`; `--since 2h --until 1h` is the hour before the last one".to_owned(),
        )),
        (Some(since), None) if since >= now_ms() + 1_000 => {
            Err(AppError::Usage("`--since` is in the future, where nothing has happened yet".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The range that is counted: the last hour where nothing else was said.
fn counted_range(range: RangeArgs) -> (i64, i64) {
    let until = range.until.unwrap_or_else(now_ms);
    (range.since.unwrap_or(until - DEFAULT_RANGE_MS), until)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn unavailable(error: StoreError) -> AppError {
    match error {
        StoreError::Query(reason) => AppError::Usage(reason),
        error => AppError::Part(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_holds_nothing_is_refused() {
        assert!(check(RangeArgs { since: Some(5), until: Some(5) }).is_err());
        assert!(check(RangeArgs { since: Some(now_ms() + 60_000), until: None }).is_err());
        assert!(check(RangeArgs { since: Some(4), until: Some(5) }).is_ok());
        assert_eq!(counted_range(RangeArgs { since: None, until: Some(7_200_000) }), (3_600_000, 7_200_000));
    }
}
