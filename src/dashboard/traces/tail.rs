//! What happens now: events as they are stored, one stream a watcher.
//!
//! The stream is one of server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): each
//! message is a JSON object with rows, its id the time up to which the watcher has seen. A browser that comes again brings
//! that as `Last-Event-ID` (a page that was hidden meanwhile as `last`), so the stream goes on a little before it; the page
//! knows by their ids what it has already. The store is asked only while somebody reads the stream.

use std::time::Duration;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Zoned;
use maud::html;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::form::Form;
use super::{Trouble, service_names};
use crate::dashboard::login::Stay;
use crate::dashboard::page::{Section, page};
use crate::dashboard::{Dashboard, Visitor, value_of};
use crate::figures::duration;
use crate::reading::{Follow, Shown};
use crate::shutdown::Shutdown;
use crate::store::{FIRST_ERROR, StoreError, TraceStore};

/// Streams of a process; each asks the store every second.
static STREAMS: Semaphore = Semaphore::const_new(32);
/// How often the store is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing may be said: proxies and browsers give up on a silent stream, and only what is sent finds out that
/// nobody reads any more.
const SILENCE: u32 = 5;
/// Rows of a message; of more the newest, with the number of those left out.
const ROWS: usize = 200;
/// Events of a poll, and ids that are remembered: nobody reads more.
const PAGES: usize = 2;
const KNOWN: usize = 20_000;
/// What a new watcher sees at once.
const BEFORE_MS: i64 = 10_000;
/// How far a stream goes back when it goes on: events are stored out of order.
const OVERLAP_MS: i64 = 3_000;
/// A watcher that was away for longer begins anew.
const LONGEST_BREAK_MS: i64 = 600_000;

/// `GET /traces/tail`.
pub async fn show(request: HttpRequest, dashboard: web::Data<Dashboard>, visitor: Visitor) -> HttpResponse {
    let form = Form::read(request.query_string(), &Zoned::now());
    let main = html! {
        nav.crumbs aria-label="Where this is" { a href="/traces" { "Traces" } " / Live tail" }
        div.head {
            h1 { "Live tail" }
            div.end {
                button type="button" id="tail-pause" aria-pressed="false" hidden { "Pause" } " "
                button type="button" id="tail-clear" hidden { "Clear" }
            }
        }
        section.card { div.body { (form.markup("/traces/tail", false, &service_names(&dashboard))) } }
        section.card {
            header { h2 { "Events" } span.soft id="tail-count" role="status" { "waiting for events" } }
            noscript { p.notice.warn { "Following needs JavaScript. " a href={ "/traces" (form.link(&[])) } { "Search" } " works without." } }
            div.scroll {
                table.tail id="tail" data-tail={ "/live/traces" (form.link(&[])) } {
                    thead { tr { th { "Time" } th { "Event" } th { "Service" } th { "Status" } th.num { "Took" } th { "Request" } } }
                    tbody {}
                }
            }
        }
    };
    page(&visitor, Section::Traces, "Live tail", &main)
}

/// `GET /live/traces`.
pub async fn stream(request: HttpRequest, dashboard: web::Data<Dashboard>, visitor: Visitor) -> HttpResponse {
    let Some(store) = dashboard.store().cloned() else { return Trouble::Starting.page(&visitor) };
    let Ok(permit) = STREAMS.try_acquire() else {
        return HttpResponse::ServiceUnavailable().body("too many tails are open; close one\n");
    };
    let now = Zoned::now();
    let now_ms = now.timestamp().as_millisecond();
    let form = Form::read(request.query_string(), &now);
    let brought = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let last = brought.or_else(|| value_of(request.query_string(), "last")?.parse().ok());
    let follow = Follow::new(form.query, start_ms(last, now_ms)).at_most(PAGES, KNOWN);
    let stay = visitor.stay;
    let watcher =
        Watcher { store, follow, ending: dashboard.ending(), stay, silent: 0, is_first: true, _permit: permit };
    let messages = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let text = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), watcher))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(messages)
}

/// From when on events are new to a watcher that has seen those up to `last_ms`.
fn start_ms(last_ms: Option<i64>, now_ms: i64) -> i64 {
    match last_ms {
        Some(last_ms) if last_ms > now_ms - LONGEST_BREAK_MS => last_ms.min(now_ms) - OVERLAP_MS,
        _ => now_ms - BEFORE_MS,
    }
}

struct Watcher {
    store: std::sync::Arc<dyn TraceStore>,
    follow: Follow,
    ending: Shutdown,
    /// How long the reader is let in.
    stay: Stay,
    /// Polls since something was said.
    silent: u32,
    is_first: bool,
    _permit: SemaphorePermit<'static>,
}

impl Watcher {
    /// The next message; `None` when the process or the reader's login ends.
    async fn next(&mut self) -> Option<String> {
        loop {
            if !std::mem::take(&mut self.is_first) {
                tokio::select! {
                    () = self.ending.begun() => return None,
                    () = self.stay.ended() => return None,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
            let polled = tokio::select! {
                () = self.ending.begun() => return None,
                () = self.stay.ended() => return None,
                polled = self.follow.poll(&*self.store, crate::trace::event::now_ms()) => polled,
            };
            self.silent += 1;
            match polled {
                Ok(news) if news.is_empty() && self.silent < SILENCE => {}
                Ok(news) if news.is_empty() => {
                    self.silent = 0;
                    return Some(": nothing new\n\n".to_owned());
                }
                Ok(news) => {
                    self.silent = 0;
                    return Some(message(&news));
                }
                Err(error) => {
                    self.silent = 0;
                    return Some(trouble(&error));
                }
            }
        }
    }
}

/// A row of the page.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    request: &'a str,
    time: i64,
    event: &'a str,
    service: String,
    status: Option<u16>,
    took: Option<String>,
    line: String,
    failed: bool,
}

impl<'a> Row<'a> {
    fn of(shown: &'a Shown) -> Self {
        let short = |text: &str| text.chars().take(200).collect::<String>();
        Self {
            id: &shown.event_id,
            request: &shown.request_id,
            time: shown.time_ms,
            event: &shown.event,
            service: short(&shown.service_name),
            status: shown.status,
            took: shown.duration_ns.map(duration),
            line: short(&shown.line()),
            failed: shown.status.is_some_and(|status| status >= FIRST_ERROR) || !shown.span.error.is_empty(),
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    rows: Vec<Row<'a>>,
    /// How many more there were than a page shows.
    skipped: usize,
}

fn message(news: &[(Shown, String)]) -> String {
    let skipped = news.len().saturating_sub(ROWS);
    let rows: Vec<Row<'_>> = news[skipped..].iter().map(|(shown, _)| Row::of(shown)).collect();
    let cursor = news.iter().map(|(shown, _)| shown.time_ms).max().unwrap_or(0);
    match serde_json::to_string(&Message { rows, skipped }) {
        Ok(json) => format!("id: {cursor}\ndata: {json}\n\n"),
        Err(error) => format!(": {error}\n\n"),
    }
}

fn trouble(error: &StoreError) -> String {
    let words = crate::causes::chain(error).replace(['\r', '\n'], " ");
    format!("event: trouble\ndata: {words}\n\n")
}

#[cfg(test)]
mod tests {
    use super::super::waterfall::tests::event;
    use super::*;

    #[test]
    fn a_message_holds_the_newest_rows_and_says_how_many_are_left_out() {
        let shown = |time_ms| Shown {
            event_id: format!("e{time_ms}"),
            ..event("service.end", "a\nb", "s", "", time_ms, Some((503, 2)))
        };
        let news: Vec<_> = (0..ROWS as i64 + 5).map(|time_ms| (shown(time_ms), String::new())).collect();
        let text = message(&news);
        let (head, data) = text.split_once("\ndata: ").expect("two lines");
        assert_eq!(head, "id: 204");
        let json: serde_json::Value = serde_json::from_str(data.trim_end()).expect("JSON in one line");
        assert_eq!((&json["skipped"], &json["rows"][0]["id"]), (&5.into(), &"e5".into()));
        assert_eq!(json["rows"][0]["took"], "2.00ms");
        assert_eq!((data.matches('\n').count(), &json["rows"][0]["failed"]), (2, &true.into()));
    }

    #[test]
    fn a_watcher_that_comes_again_goes_on_where_it_was() {
        assert_eq!(start_ms(None, 1_000_000), 990_000);
        assert_eq!(start_ms(Some(900_000), 1_000_000), 897_000);
        assert_eq!(start_ms(Some(5_000_000), 1_000_000), 997_000, "a node's clock is ahead");
        assert_eq!(start_ms(Some(1), 1_000_000), 990_000, "after a long break it begins anew");
    }
}
