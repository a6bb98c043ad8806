//! Whether traces arrive: what this process recorded, what waits, what was lost, and what its store took.

use maud::{Markup, html};

use super::Look;
use crate::dashboard::page::told;
use crate::figures::{bytes, grouped};
use crate::metrics::Reading;

pub(super) fn part(look: &Look) -> Markup {
    let reading = &look.reading;
    let lost: Vec<(&str, f64)> =
        reading.by("trace_dropped_total", "where").into_iter().filter(|(_, count)| *count > 0.0).collect();
    html! {
        header {
            h2 { "Trace pipeline" }
            @if lost.is_empty() { span.badge.good { "nothing lost" } } @else { span.badge.bad { "events lost" } }
        }
        dl.pairs.body {
            (count(reading, "Recorded here", "trace_recorded_total"))
            (count(reading, "Delivered", "trace_delivered_total"))
            @if let Some(waiting) = reading.sum("trace_spooled_bytes") {
                dt { "Waiting on disk" } dd { (bytes(whole(waiting))) }
            }
            @for (place, count) in &lost {
                dt.bad { "Lost (" (told(place)) ")" } dd.bad { (grouped(whole(*count))) }
            }
            @if let Some(damaged) = reading.sum("trace_spool_bad_files_total").filter(|count| *count > 0.0) {
                dt.bad { "Damaged files set aside" } dd.bad { (grouped(whole(damaged))) }
            }
            @if reading.sum("consumer_stored_total").is_some() {
                (count(reading, "Stored", "consumer_stored_total"))
                (count(reading, "Waiting for the store", "consumer_waiting_events"))
                (count(reading, "Not acknowledged", "consumer_unacknowledged_messages"))
                (count(reading, "Written again", "consumer_retried_total"))
                (count(reading, "Refused by the store", "consumer_refused_total"))
                @if let Some(expired) = reading.sum("store_expired_total").filter(|count| *count > 0.0) {
                    dt { "Expired" } dd { (grouped(whole(expired))) }
                }
            } @else {
                dt { "Store" } dd.soft { "in another process, whose own dashboard tells of it" }
            }
        }
    }
}

fn count(reading: &Reading, title: &str, name: &str) -> Markup {
    html! { @if let Some(count) = reading.sum(name) { dt { (title) } dd { (grouped(whole(count))) } } }
}

/// Counters count in whole numbers.
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
