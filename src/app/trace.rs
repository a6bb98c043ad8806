//! `goms trace`: reads events from whichever store the config names, and draws a request's timeline.

mod source;
mod timeline;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::table::render;
use super::{AppError, output};
use crate::cli::{Output, SearchArgs, ShowArgs, TailArgs, TraceCommand};
use crate::config::Config;
use crate::store::{Order, Query, StoreError, TraceStore};

/// How often `tail` asks for newer events.
const TAIL_INTERVAL: Duration = Duration::from_millis(500);
/// Events reach the store up to so much later than they happened (flush, batch, refresh); `tail` looks back that far.
const TAIL_OVERLAP_MS: i64 = 5_000;
/// Ids that `tail` remembers, so that it prints an event once.
const TAIL_MEMORY: usize = 20_000;
/// A request has four events for each hop; nobody draws more.
const SHOW_LIMIT: usize = 1_000;

/// What the terminal shows of an event; an original's has no fields after `trace`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Shown {
    request_id: String,
    request: ShownRequest,
    event: String,
    time: String,
    service_name: String,
    node: String,
    event_id: String,
    span_id: String,
    status: Option<u16>,
    duration_ns: Option<u64>,
    time_ms: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ShownRequest {
    method: String,
    url: String,
    url_param: String,
}

impl Shown {
    /// Where it stands among its request's events. One millisecond may hold a whole request: then their kind tells.
    fn place(&self) -> (i64, Option<usize>) {
        let life = ["request.start", "service.start", "service.end", "request.end"];
        (self.time_ms, life.iter().position(|kind| *kind == self.event))
    }
}

impl ShownRequest {
    /// `POST /api/user/login?a=1`.
    fn line(&self) -> String {
        format!("{} {}{}", self.method, self.url, self.url_param)
    }
}

/// Runs one `goms trace` command.
///
/// # Errors
/// [`AppError::Unavailable`] when there is no store to read or nothing is known of the request.
pub async fn run(config: &Config, command: TraceCommand) -> Result<(), AppError> {
    let store = source::open(config).await?;
    match command {
        TraceCommand::Search(args) => search(&*store, &args).await,
        TraceCommand::Show(args) => show(&*store, &args).await,
        TraceCommand::Tail(args) => tail(&*store, &args).await,
    }
}

async fn search(store: &dyn TraceStore, args: &SearchArgs) -> Result<(), AppError> {
    let page = store.query(&args.query()).await.map_err(unavailable)?;
    match args.output.output {
        Output::Json => output::json(&page),
        Output::Table => {
            let shown: Vec<Shown> = page.events.iter().map(|event| read(event)).collect();
            output::text(&by_request(&shown));
            let more = if page.next.is_some() { "; narrow the search or raise --limit for more" } else { "" };
            output::line(&format!("{} of {} events{more}", shown.len(), page.total));
        }
    }
    Ok(())
}

async fn show(store: &dyn TraceStore, args: &ShowArgs) -> Result<(), AppError> {
    let id = args.id.as_str();
    let query = Query { request_id: Some(id.to_owned()), order: Order::Oldest, limit: SHOW_LIMIT, ..Query::default() };
    let page = store.query(&query).await.map_err(unavailable)?;
    if page.events.is_empty() {
        return Err(AppError::Unavailable(format!(
            "no events of request `{id}`; `goms trace search` lists what there is (events take a moment to arrive)"
        )));
    }
    match args.output.output {
        Output::Json => output::json(&page.events),
        Output::Table => {
            let mut shown: Vec<Shown> = page.events.iter().map(|event| read(event)).collect();
            shown.sort_by_key(Shown::place);
            output::text(&timeline::draw(&shown));
        }
    }
    Ok(())
}

async fn tail(store: &dyn TraceStore, args: &TailArgs) -> Result<(), AppError> {
    let mut query = args.filter.query();
    query.order = Order::Oldest;
    query.limit = 1_000;
    let mut newest_ms = jiff::Timestamp::now().as_millisecond();
    let start_ms = newest_ms;
    let mut printed: HashSet<String> = HashSet::new();
    let mut order: VecDeque<String> = VecDeque::new();
    loop {
        query.since_ms = Some((newest_ms - TAIL_OVERLAP_MS).max(start_ms));
        query.after = None;
        loop {
            let page = store.query(&query).await.map_err(unavailable)?;
            for event in &page.events {
                let shown = read(event);
                newest_ms = newest_ms.max(shown.time_ms);
                // an original's event has no id: its text stands for it
                let key = if shown.event_id.is_empty() { event.get() } else { &shown.event_id };
                if printed.insert(key.to_owned()) {
                    order.push_back(key.to_owned());
                    output::line(&match args.output.output {
                        Output::Json => event.get().to_owned(),
                        Output::Table => line(&shown),
                    });
                }
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        while order.len() > TAIL_MEMORY {
            if let Some(oldest) = order.pop_front() {
                printed.remove(&oldest);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(TAIL_INTERVAL) => {}
            ended = tokio::signal::ctrl_c() => return ended.map_err(AppError::Start),
        }
    }
}

fn unavailable(error: StoreError) -> AppError {
    AppError::Part(Box::new(error))
}

/// A stored event is JSON that a consumer checked; what it lacks is shown empty.
fn read(event: &RawValue) -> Shown {
    serde_json::from_str(event.get()).unwrap_or_default()
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
        text.push_str(&format!("{id}  {time}\n"));
        for line in lines.by_ref().take(events.len()) {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

fn cells(shown: &Shown) -> Vec<String> {
    vec![
        format!("  {}", shown.event),
        shown.service_name.clone(),
        shown.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        shown.duration_ns.map_or_else(|| "-".to_owned(), timeline::duration),
        shown.request.line(),
    ]
}

/// An event on a line of its own.
fn line(shown: &Shown) -> String {
    let status = shown.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let took = shown.duration_ns.map_or_else(|| "-".to_owned(), timeline::duration);
    let time = shown.time.split_once(' ').map_or(shown.time.as_str(), |(_, clock)| clock);
    let (event, service) = (&shown.event, &shown.service_name);
    format!(
        "{time}  {}  {event:<13}  {service:<10}  {status:<3}  {took:<8}  {}",
        shown.request_id,
        shown.request.line()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: &str, time_ms: i64) -> Shown {
        Shown {
            request_id: id.into(),
            event: kind.into(),
            time: "2026-11-21 10:50:36".into(),
            service_name: "user".into(),
            request: ShownRequest { method: "GET".into(), url: "/login".into(), url_param: String::new() },
            time_ms,
            ..Shown::default()
        }
    }

    #[test]
    fn found_events_stand_under_their_request() {
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
