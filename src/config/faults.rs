//! `faults` of a route: what goes wrong on purpose, and for whom.

use std::time::Duration;

use super::decode::{Decoder, Field, boolean, number};
use super::routes;
use super::shares::permille;
use super::units::{format_duration, parse_positive_duration};
use super::values::header_name;
use crate::gateway::faults::{EVERY_PERMILLE, Faults};

/// A request that waits holds its connection and memory, and few clients wait longer.
const MOST_DELAY: Duration = Duration::from_secs(60);
const EXAMPLE: &str = "{ delay: 500ms, abort: 503, share: 10%, headers: { x-fault: \"*\" } }";

/// Reads `faults`. Without header fields they would strike everybody, which must be said.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Option<Faults> {
    let before = decoder.faults.len();
    let table = decoder.table(field, &["delay", "abort", "share", "headers", "everyone"]);
    let delay = table.get("delay").and_then(|field| decoder.read(&field, delay));
    let abort = table.get("abort").and_then(|field| decoder.read(&field, number(400, 599)));
    let permille = table.get("share").map_or(Some(EVERY_PERMILLE), |field| decoder.read(&field, permille));
    let headers = routes::fields(decoder, table.get("headers"), header_name);
    let everyone = table.get("everyone").map(|field| (decoder.read(&field, boolean), field.place.clone()));
    if decoder.faults.len() > before {
        return None;
    }
    if delay.is_none() && abort.is_none() {
        decoder.fault(&field.place, format!("does nothing; write for example `{EXAMPLE}`"));
    }
    match (headers.is_empty(), everyone) {
        (true, None | Some((Some(false), _))) => {
            let message = "would strike every request; name `headers` that a request must have, for example \
                           `{ x-fault: \"*\" }`, or write `everyone: true`";
            decoder.fault(&field.place, message);
        }
        (false, Some((Some(true), place))) => {
            decoder.fault(&place, "stands beside `headers`, which say whose requests are meant; leave one out");
        }
        _ => {}
    }
    (decoder.faults.len() == before).then_some(Faults { delay, abort, permille: permille?, headers })
}

fn delay(text: &str) -> Result<Duration, String> {
    match parse_positive_duration(text)? {
        delay if delay > MOST_DELAY => Err(format!("must be at most `{}`, got `{text}`", format_duration(MOST_DELAY))),
        delay => Ok(delay),
    }
}
