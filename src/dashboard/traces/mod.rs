//! Traces: search, one request, two compared, what happens now.
//!
//! ```text
//! GET /traces                          search (form) → results, scatter plot
//! GET /traces/ID                       a request or trace as a waterfall
//! GET /traces/ID/events/EVENT          one stored event, raw
//! GET /traces/ID/download/FORMAT       otlp, har, curl, json
//! GET, POST /traces/ID/replay          it is sent again
//! GET /traces/compare?a=ID&b=ID        two of them
//! GET /traces/tail, /live/traces       what happens now, and its stream
//! ```

mod align;
pub(super) mod body;
mod compare;
mod download;
mod form;
mod replay;
mod request;
mod scatter;
mod search;
mod span;
mod tail;
mod waterfall;

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::page::problem;
use super::{Dashboard, Visitor};
use crate::causes::chain;
use crate::reading::{Most, Shown, find};
use crate::store::StoreError;

/// Of a request's events a page reads so many; more take memory that nobody looks at. An event with short bodies has one or
/// two KiB, so that all of them have room; with the longest bodies (16 KiB each way) it is a thousand or so.
const MOST: Most = Most { events: 4_000, bytes: 16 << 20 };

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/traces", web::get().to(search::show))
        .route("/traces/compare", web::get().to(compare::show))
        .route("/traces/tail", web::get().to(tail::show))
        .route("/live/traces", web::get().to(tail::stream))
        .route("/traces/{id}", web::get().to(request::show))
        .route("/traces/{id}/events/{event}", web::get().to(download::event))
        .route("/traces/{id}/download/{format}", web::get().to(download::file))
        .service(
            web::resource("/traces/{id}/replay")
                .app_data(web::FormConfig::default().limit(replay::FORM_BYTES))
                .route(web::get().to(replay::show))
                .route(web::post().to(replay::run)),
        );
}

/// Why a page of traces cannot be shown.
enum Trouble {
    /// The process has no store yet.
    Starting,
    /// The store does not answer, or refuses the question.
    Store(StoreError),
    /// Others read as much as there is room for.
    Busy,
    /// Nothing is known of this id.
    Unknown(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    fn status(&self) -> StatusCode {
        match self {
            Self::Starting | Self::Busy | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Starting => "Traces are not ready yet",
            Self::Busy => "Too much is read at once",
            Self::Store(StoreError::Query(_)) => "This cannot be searched",
            Self::Store(_) => "The trace store is away",
            Self::Unknown(_) => "Nothing is known of this request",
        }
    }

    fn advice(&self) -> Markup {
        match self {
            Self::Starting => html! { "This process has just started. Load the page again in a moment." },
            Self::Busy => html! {
                "Other pages of traces take all the memory that this process gives them. Load the page again in a moment."
            },
            Self::Store(StoreError::Query(reason)) => html! { (reason) },
            Self::Store(error) => html! {
                "Nodes keep their events on disk meanwhile. Load the page again when the store is back."
                br;
                code { (chain(error)) }
            },
            Self::Unknown(id) => html! {
                "There are no events of request or trace " (super::page::told(id))
                ". They take a second to arrive, a request may not have been sampled, and old ones go after the retention. "
                a href="/traces?since=all" { "Search all traces" }
            },
        }
    }

    fn page(&self, visitor: &Visitor) -> HttpResponse {
        problem(self.status(), visitor, self.title(), &self.advice())
    }
}

/// What events take that a page reads at once, all pages together, in KiB: their JSON and what is read of it.
static ROOM: Semaphore = Semaphore::const_new(128 << 10);
/// Of one page: [`MOST`] twice.
const PAGE_KIB: u32 = 32 << 10;
/// How long a page waits until others have been sent.
const ROOM_PATIENCE: Duration = Duration::from_secs(3);

/// Events, and their part of the room that all pages have.
struct Held {
    events: Vec<(Shown, Box<RawValue>)>,
    is_cut: bool,
    room: SemaphorePermit<'static>,
}

/// The events of a request or trace.
async fn events_of(dashboard: &Dashboard, id: &str) -> Result<Held, Trouble> {
    let store = dashboard.store().ok_or(Trouble::Starting)?;
    let room = room(&ROOM, ROOM_PATIENCE).await?;
    let found = find(&**store, id, MOST).await?;
    match found.events.is_empty() {
        true => Err(Trouble::Unknown(id.to_owned())),
        false => Ok(Held { events: found.events, is_cut: found.is_cut, room }),
    }
}

/// A page's part of the room; waits for it a little.
async fn room(of: &'static Semaphore, patience: Duration) -> Result<SemaphorePermit<'static>, Trouble> {
    match tokio::time::timeout(patience, of.acquire_many(PAGE_KIB)).await {
        Ok(Ok(room)) => Ok(room),
        Ok(Err(_)) | Err(_) => Err(Trouble::Busy), // it is never closed
    }
}

/// Names of the services that the registry knows, for a form to propose: at most 200.
fn service_names(dashboard: &Dashboard) -> Vec<String> {
    let catalog = dashboard.inner.catalog.borrow().clone();
    let services = catalog.iter().flat_map(|catalog| catalog.services()).map(|(name, _)| name.to_owned());
    services.take(200).collect()
}

/// A part of a path: what came from outside may hold anything.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A moment in the time zone of this process, to the millisecond; with the date where it is not of today.
fn moment(ms: i64) -> Markup {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = at.to_zoned(TimeZone::system());
    let is_today = local.date() == jiff::Zoned::now().date();
    html! {
        time datetime=(at) title=(local.strftime("%Y-%m-%d %H:%M:%S %z")) {
            @if !is_today { span.date { (local.strftime("%Y-%m-%d")) } " " } (local.strftime("%H:%M:%S"))
            small { (format!(".{:03}", ms.rem_euclid(1_000))) }
        }
    }
}

/// A time of an axis, short: with the date where the range is longer than a day.
fn tick(ms: i64, range_ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::system());
    let form = match range_ms {
        ..60_000 => "%H:%M:%S",
        60_000..86_400_000 => "%H:%M",
        _ => "%m-%d %H:%M",
    };
    at.strftime(form).to_string()
}

/// A status in a box; also in words for those who see no colour.
fn badge(status: Option<u16>, is_failed: bool) -> Markup {
    let class = match status {
        _ if is_failed => "bad",
        Some(500..) => "bad",
        Some(400..) => "warn",
        Some(_) => "good",
        None => "",
    };
    html! {
        span class={ "badge " (class) } {
            @match status {
                Some(status) => (status),
                None if is_failed => "failed",
                None => "no status",
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_holds_anything() {
        assert_eq!(segment("a-1_.~"), "a-1_.~");
        assert_eq!(segment("../é\"<"), "..%2F%C3%A9%22%3C");
    }

    #[tokio::test]
    async fn pages_share_the_room_and_one_too_many_is_told_so() {
        static SMALL: Semaphore = Semaphore::const_new(2 * PAGE_KIB as usize);
        let one = room(&SMALL, Duration::from_millis(5)).await.ok().expect("room");
        let two = room(&SMALL, Duration::from_millis(5)).await.ok().expect("room");
        let three = room(&SMALL, Duration::from_millis(5)).await.expect_err("none");
        assert!(matches!(three, Trouble::Busy));
        let page = three.page(&Visitor::default());
        assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(one);
        assert!(room(&SMALL, Duration::from_millis(5)).await.is_ok(), "what was sent gives its room back");
        drop(two);
    }

    #[test]
    fn a_status_says_how_it_went() {
        assert!(badge(Some(503), true).into_string().contains("bad"));
        assert!(badge(Some(404), false).into_string().contains("warn"));
        assert!(badge(None, true).into_string().contains("failed"));
    }
}
