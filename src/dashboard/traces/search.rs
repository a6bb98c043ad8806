//! The page that searches traces.

use std::collections::{BTreeMap, HashMap};

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Zoned;
use maud::{Markup, html};

use super::form::Form;
use super::{ROOM, ROOM_PATIENCE, Trouble, badge, moment, room, scatter, segment, service_names, tick};
use crate::dashboard::page::{Section, page, told};
use crate::dashboard::{Dashboard, Visitor};
use crate::figures::{duration, grouped};
use crate::reading::Shown;
use crate::store::{FIRST_ERROR, Order, Page, Query, StatsQuery, StoreError, TraceStore};

/// `GET /traces`.
pub async fn show(request: HttpRequest, dashboard: web::Data<Dashboard>, visitor: Visitor) -> HttpResponse {
    let now = Zoned::now();
    let form = Form::read(request.query_string(), &now);
    let room = room(&ROOM, ROOM_PATIENCE).await;
    let answer = match (dashboard.store(), &room) {
        (None, _) => Err(Trouble::Starting),
        (_, Err(_)) => Err(Trouble::Busy),
        (Some(store), Ok(_)) => {
            read(&**store, &form.query, now.timestamp().as_millisecond()).await.map_err(Trouble::from)
        }
    };
    let main = html! {
        div.head {
            h1 { "Traces" }
            nav.end aria-label="Traces" { a.button href={ "/traces/tail" (form.link(&TAIL_LACKS)) } { "Live tail" } }
        }
        section.card { div.body { (form.markup("/traces", true, &service_names(&dashboard))) } }
        @if form.has_faults() { p.notice.warn role="alert" { "A filter could not be read: what is below is found without it." } }
        @match &answer {
            Ok(answer) => (results(&form, answer)),
            Err(trouble) => div.notice.warn role="alert" { strong { (trouble.title()) } p { (trouble.advice()) } },
        }
    };
    let mut response = page(&visitor, Section::Traces, "Traces", &main);
    if let Err(trouble) = answer {
        response.head_mut().status = trouble.status();
    }
    response
}

/// What the live tail has no use for.
const TAIL_LACKS: [(&str, Option<&str>); 5] =
    [("since", None), ("until", None), ("order", None), ("limit", None), ("after", None)];

/// What a search found.
struct Answer {
    page: Page,
    range: (i64, i64),
    points: Vec<scatter::Point>,
}

async fn read(store: &dyn TraceStore, query: &Query, now_ms: i64) -> Result<Answer, StoreError> {
    let range = async {
        let until = query.until_ms.unwrap_or(now_ms);
        match query.since_ms {
            Some(since) => Ok((since, until)),
            None => whole_range(store, query, until).await,
        }
    };
    // a later page shows the same plot again: it is of the whole range
    let plot = async {
        let range = range.await?;
        scatter::points(store, query, range).await.map(|points| (range, points))
    };
    let (page, plot) = futures_util::future::try_join(store.query(query), plot).await?;
    Ok(Answer { page, range: plot.0, points: plot.1 })
}

/// From the first to the last of what is looked for.
async fn whole_range(store: &dyn TraceStore, query: &Query, until: i64) -> Result<(i64, i64), StoreError> {
    let filter = Query { after: None, ..query.clone() };
    let stats = store.stats(&StatsQuery { filter, ..StatsQuery::default() }).await?;
    let first = stats.first_ms.unwrap_or(until - 3_600_000);
    Ok((first, stats.last_ms.map_or(until, |last| (last + 1).min(until)).max(first + 1)))
}

fn results(form: &Form, answer: &Answer) -> Markup {
    let shown: Vec<Shown> = answer.page.events.iter().map(|event| Shown::read(event)).collect();
    let hits = hits(&shown);
    let total = answer.page.total;
    if hits.is_empty() {
        return nothing(form);
    }
    let range_ms = answer.range.1 - answer.range.0;
    html! {
        section.card aria-label="Durations" {
            div.body { (scatter::draw(&answer.points, answer.range, total, |ms| tick(ms, range_ms))) }
        }
        section.card {
            header {
                h2 { (grouped(total)) @if total == 1 { " event matches" } @else { " events match" } }
                span.soft { (shown.len()) " here, of " (hits.len()) @if hits.len() == 1 { " request" } @else { " requests" } }
                (orders(form))
            }
            form id="compare" method="get" action="/traces/compare" {}
            div.scroll { (table(&hits)) }
            (pager(form, answer.page.next.as_deref()))
        }
    }
}

fn nothing(form: &Form) -> Markup {
    html! {
        section.card {
            div.empty {
                h2 { "Nothing matches" }
                p { "Events take a second to arrive." }
                p { a href={ "/traces" (form.link(&[("since", Some("24h")), ("until", None), ("after", None)])) } { "The last 24 hours" }
                    " · " a href={ "/traces" (form.link(&[("since", Some("all")), ("until", None), ("after", None)])) } { "Any time" }
                    " · " a href="/traces" { "Without filters" } }
                p { "No traffic yet? Send some: " br; code { "curl -d '{}' http://127.0.0.1:8080/api/user/login" } }
            }
        }
    }
}

fn orders(form: &Form) -> Markup {
    let orders = [
        ("newest", "Newest", Order::Newest),
        ("slowest", "Slowest", Order::Slowest),
        ("oldest", "Oldest", Order::Oldest),
    ];
    html! {
        nav.segments.end aria-label="Order over the whole range" {
            @for (word, name, order) in orders {
                a href={ "/traces" (form.link(&[("order", Some(word)), ("after", None)])) }
                    aria-current=[(form.query.order == order).then_some("true")] { (name) }
            }
        }
    }
}

fn pager(form: &Form, next: Option<&str>) -> Markup {
    html! {
        div.pager {
            button type="submit" form="compare" { "Compare two" }
            span.soft { "tick two requests" }
            @if !form.text("after").is_empty() { a.button href={ "/traces" (form.link(&[("after", None)])) } { "First page" } }
            @if next.is_some() { a.button rel="next" href={ "/traces" (form.link(&[("after", next)])) } { "Next page" } }
        }
    }
}

/// A request of which something was found.
struct Hit<'a> {
    /// The event that tells most: the gateway's, or else the longest.
    told: &'a Shown,
    /// Events that were found, by service, and how many of them failed.
    services: BTreeMap<&'a str, (usize, usize)>,
}

/// The found events by request, in the order of the search.
fn hits(shown: &[Shown]) -> Vec<Hit<'_>> {
    let mut hits: Vec<Hit<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for event in shown {
        let place = *places.entry(&event.request_id).or_insert(hits.len());
        if place == hits.len() {
            hits.push(Hit { told: event, services: BTreeMap::new() });
        }
        let hit = &mut hits[place];
        if weight(event) > weight(hit.told) {
            hit.told = event;
        }
        let count = hit.services.entry(&event.service_name).or_default();
        count.0 += 1;
        count.1 += usize::from(is_failed(event));
    }
    hits
}

fn weight(event: &Shown) -> (bool, bool, u64) {
    (event.event.starts_with("request."), event.is_end(), event.duration_ns.unwrap_or(0))
}

fn is_failed(event: &Shown) -> bool {
    event.status.is_some_and(|status| status >= FIRST_ERROR) || !event.span.error.is_empty()
}

fn table(hits: &[Hit<'_>]) -> Markup {
    let longest = hits.iter().filter_map(|hit| hit.told.duration_ns).max().unwrap_or(1).max(1);
    html! {
        table.hits {
            thead { tr {
                th { span.visually-hidden { "Compare" } }
                th { "Time" } th { "Request" } th { "Status" } th.num { "Took" } th { span.visually-hidden { "Share of the longest" } } th { "Services" }
            } }
            tbody { @for (at, hit) in hits.iter().enumerate() { (row(at, hit, longest)) } }
        }
    }
}

fn row(at: usize, hit: &Hit<'_>, longest: u64) -> Markup {
    let told_by = hit.told;
    let line = told_by.line();
    let name = if line.trim().is_empty() { told_by.event.as_str() } else { &line };
    html! {
        tr {
            td.pick {
                input type="checkbox" name="id" value=(cut(&told_by.request_id)) form="compare" id={ "pick-" (at) }
                    aria-label={ "Compare " (name.chars().take(80).collect::<String>()) };
            }
            td.when { (moment(told_by.time_ms)) }
            td.wide { a.request href={ "/traces/" (segment(cut(&told_by.request_id))) } { (told(name)) } }
            td { (badge(told_by.status, is_failed(told_by))) }
            td.num { @match told_by.duration_ns { Some(ns) => (duration(ns)), None => "–" } }
            td.share { @if let Some(ns) = told_by.duration_ns { (share(ns, longest, is_failed(told_by))) } }
            td.services {
                @for (service, (events, failed)) in hit.services.iter().take(6) {
                    span class={ "badge " @if *failed > 0 { "bad" } } {
                        (told(service)) @if *events > 1 { " ×" (events) } @if *failed > 0 { " " (failed) " failed" }
                    } " "
                }
                @if hit.services.len() > 6 { span.soft { "+" (hit.services.len() - 6) } }
            }
        }
    }
}

/// An id longer than this is nobody's.
fn cut(id: &str) -> &str {
    id.char_indices().nth(200).map_or(id, |(end, _)| &id[..end])
}

fn share(ns: u64, longest: u64, is_failed: bool) -> Markup {
    let width = (ns as f64 / longest as f64 * 100.0).max(1.0);
    let class = if is_failed { "bar failed" } else { "bar" };
    html! {
        svg.took viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="100" height="6" {}
            rect class=(class) width=(format!("{width:.1}")) height="6" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::waterfall::tests::event;
    use super::*;

    #[test]
    fn events_of_a_request_are_one_hit_told_by_the_gateway() {
        let other = |shown: Shown| Shown { request_id: "other".into(), ..shown };
        let shown = [
            event("service.end", "user", "b", "a", 1_030, Some((500, 20))),
            other(event("service.end", "user", "c", "", 1_029, Some((200, 1)))),
            event("request.end", "gateway", "a", "", 1_040, Some((502, 10))),
            event("service.end", "user", "d", "a", 1_035, Some((200, 3))),
        ];
        let found = hits(&shown);
        let told: Vec<_> =
            found.iter().map(|hit| (hit.told.request_id.as_str(), hit.told.service_name.as_str())).collect();
        assert_eq!(told, [("r", "gateway"), ("other", "user")]);
        assert_eq!(found[0].services, BTreeMap::from([("gateway", (1, 1)), ("user", (2, 1))]));
    }
}
