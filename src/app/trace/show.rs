//! `goms trace show`: the events of a request and of its trace.

use serde_json::value::RawValue;

use super::{Shown, timeline, unavailable};
use crate::app::{AppError, output};
use crate::cli::{Output, ShowArgs};
use crate::reading::{Most, find};
use crate::store::TraceStore;

/// A request has four events for each hop; nobody draws more.
const SHOW_LIMIT: usize = 1_000;

pub async fn run(store: &dyn TraceStore, args: &ShowArgs) -> Result<(), AppError> {
    let found = find(store, &args.id, Most::events(SHOW_LIMIT)).await.map_err(unavailable)?;
    if found.events.is_empty() {
        return Err(AppError::Unavailable(format!(
            "no events of request or trace `{}`; `goms trace search` lists what there is (events take a moment to arrive)",
            args.id
        )));
    }
    if found.is_cut {
        eprintln!("goms: more than {SHOW_LIMIT} events; `goms trace export {}` writes all", args.id);
    }
    let (shown, events): (Vec<Shown>, Vec<Box<RawValue>>) = found.events.into_iter().unzip();
    match args.output.output {
        Output::Json => output::json(&events),
        Output::Table => output::text(&timeline::draw(&shown)),
    }
    Ok(())
}
