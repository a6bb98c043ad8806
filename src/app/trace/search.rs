//! `goms trace search`: a page of what was found.

use std::collections::HashMap;

use super::{Shown, grouped, printable, unavailable};
use crate::app::table::render;
use crate::app::{AppError, output};
use crate::cli::{Output, SearchArgs};
use crate::store::TraceStore;

pub async fn run(store: &dyn TraceStore, args: &SearchArgs) -> Result<(), AppError> {
    let page = store.query(&args.query()).await.map_err(unavailable)?;
    match args.output.output {
        Output::Json => output::json(&page),
        Output::Table => {
            let shown: Vec<Shown> = page.events.iter().map(|event| Shown::read(event)).collect();
            output::text(&by_request(&shown));
            output::line(&format!("{} of {} events", grouped(shown.len() as u64), grouped(page.total)));
            if let Some(next) = page.next {
                output::line(&format!("more: narrow the search, raise --limit, or add --after '{next}'"));
            }
        }
    }
    Ok(())
}

/// The found events, each request's together under its id; requests in the order of the search. Lines stay short enough
/// for a terminal of 80 columns unless the path is long.
fn by_request(found: &[Shown]) -> String {
    let mut requests: Vec<(&str, Vec<&Shown>)> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for event in found {
        let id = event.request_id.as_str();
        let place = *at.entry(id).or_insert(requests.len());
        if place == requests.len() {
            requests.push((id, Vec::new()));
        }
        requests[place].1.push(event);
    }
    let mut rows = Vec::new();
    for (_, events) in &mut requests {
        events.sort_by_key(|event| event.place());
        rows.extend(events.iter().map(|event| cells(event)));
    }
    let table = render(&["  EVENT", "SERVICE", "STATUS", "TOOK", "REQUEST"], &rows);
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for (id, events) in &requests {
        let time = events.first().map_or("", |event| event.time.as_str());
        text.push_str(&format!("{}  {}\n", printable(id), printable(time)));
        for line in lines.by_ref().take(events.len()) {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

fn cells(shown: &Shown) -> Vec<String> {
    vec![
        format!("  {}", printable(&shown.event)),
        printable(&shown.service_name),
        shown.status_text(),
        shown.took_text(),
        shown.line(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::event::tests::event;

    #[test]
    fn a_requests_events_stand_together() {
        let mut end = event("b", "service.end", 5);
        (end.status, end.duration_ns) = (Some(200), Some(170_300));
        let found = [end, event("a", "service.start", 5), event("b", "service.start", 5)];
        assert_eq!(
            by_request(&found),
            "  EVENT          SERVICE  STATUS  TOOK     REQUEST
b  2026-11-21 10:50:36
  service.start  user     -       -        GET /login
  service.end    user     200     170.3µs  GET /login
a  2026-11-21 10:50:36
  service.start  user     -       -        GET /login
"
        );
    }
}
