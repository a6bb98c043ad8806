//! The page of one service: its numbers over time, and its nodes with a filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;

use super::cluster::{self, NodeRow, STATES, ServiceRow, State};
use super::live::Fragment;
use super::page::{Section, encoded, page, problem, told};
use super::peers::{self, Peer};
use super::range::Range;
use super::{Dashboard, Visitor, counted, spark};
use crate::figures::{age, duration, grouped, pace, share};
use crate::store::{Query, Stats};

/// Nodes of one page.
const PAGE: usize = 50;

/// The longest filter that is looked for.
const LONGEST: usize = 200;

/// What stands after `?`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    range: Range,
    /// A state's word; empty: all.
    state: String,
    /// A part of a name, version or zone.
    q: String,
    /// From 1 on.
    page: usize,
}

impl Asked {
    fn takes(&self, node: &NodeRow) -> bool {
        let sought = self.q.trim();
        let has = |text: &str| text.contains(sought);
        (self.state.is_empty() || node.state.word() == self.state)
            && (sought.is_empty() || has(&node.name) || has(&node.version) || has(&node.zone))
    }

    /// The query of this view without its page and range, for another link.
    fn rest(&self) -> String {
        let mut rest = String::new();
        for (key, value) in [("state", &self.state), ("q", &self.q)] {
            if !value.is_empty() {
                rest.push_str(&format!("&{key}={}", encoded(value)));
            }
        }
        rest
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/services/{name}", web::get().to(service)).route("/live/services/{name}", web::get().to(live));
}

async fn service(
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
    name: web::Path<String>,
    asked: web::Query<Asked>,
) -> HttpResponse {
    let (name, asked) = (name.into_inner(), asked.into_inner());
    let look = look(&dashboard, &name, &asked).await;
    if look.row.is_none() && look.stats.as_ref().is_ok_and(|stats| stats.groups.is_empty()) {
        let advice =
            html! { "No node of it is registered, and no request to it was traced in " (asked.range.told()) "." };
        return problem(StatusCode::NOT_FOUND, &visitor, "No such service", &advice);
    }
    let parts: BTreeMap<&str, String> = fragments(&look).into_iter().collect();
    let part = |id: &str| PreEscaped(parts.get(id).map(String::as_str).unwrap_or_default());
    let (address, rest) = (format!("/services/{}", encoded(&name)), asked.rest());
    let stream = format!("/live{address}?range={}&page={}{rest}", asked.range.word(), asked.page);
    let of_range = format!("service={}&since={}", encoded(&name), asked.range.word());
    let main = html! {
        div.head data-live=(stream) {
            h1 { (told(&name)) }
            div.end { (asked.range.choice(&address, &rest)) }
        }
        div id="numbers" { (part("numbers")) }
        p.links {
            a href={ "/traces?" (of_range) } { "Traces" } " "
            a href={ "/traces?" (of_range) "&order=slowest" } { "Slowest" } " "
            a href={ "/traces?" (of_range) "&status=5xx" } { "Failed" }
        }
        section.card aria-label="Nodes" {
            header {
                h2 { "Nodes" }
                form.filters.end method="get" action=(address) {
                    input type="hidden" name="range" value=(asked.range.word());
                    input type="search" name="q" value=(asked.q) placeholder="address, version or zone" aria-label="Address, version or zone";
                    select name="state" aria-label="State" {
                        option value="" { "every state" }
                        @for state in STATES { option value=(state.word()) selected[state.word() == asked.state] { (state.word()) } }
                    }
                    button { "Filter" }
                }
            }
            div id="nodes" { (part("nodes")) }
        }
        div id="peers" { (part("peers")) }
    };
    page(&visitor, Section::Overview, &name, &main)
}

async fn live(
    request: HttpRequest,
    dashboard: web::Data<Dashboard>,
    name: web::Path<String>,
    asked: web::Query<Asked>,
) -> HttpResponse {
    let (name, asked) = (name.into_inner(), asked.into_inner());
    if asked.q.len() > LONGEST || name.len() > LONGEST || asked.state.len() > LONGEST {
        return HttpResponse::BadRequest().body("this filter is too long\n");
    }
    let topic = format!("service {name} {asked:?}");
    let of = dashboard.clone();
    dashboard.inner.live.answer(&request, topic, &dashboard.inner.shutdown, move || {
        Box::new(move || {
            let (dashboard, name, asked) = (of.clone(), name.clone(), asked.clone());
            Box::pin(async move { fragments(&look(&dashboard, &name, &asked).await) })
        })
    })
}

/// All that the page shows.
struct Look {
    name: String,
    asked: Asked,
    now_ms: i64,
    since_ms: i64,
    row: Option<ServiceRow>,
    stats: Result<Stats, String>,
    peers: Arc<Vec<Peer>>,
}

async fn look(dashboard: &Dashboard, name: &str, asked: &Asked) -> Look {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let filter = Query { service: Some(name.to_owned()), ..Query::default() };
    let (stats, peers) =
        futures_util::future::join(counted(dashboard, asked.range, now_ms, filter), peers::others(dashboard)).await;
    Look {
        name: name.to_owned(),
        asked: asked.clone(),
        now_ms,
        since_ms: asked.range.at(now_ms).0,
        row: cluster::services(dashboard).and_then(|mut services| services.remove(name)),
        stats,
        peers,
    }
}

fn fragments(look: &Look) -> Vec<Fragment> {
    vec![
        ("numbers", numbers(look).into_string()),
        ("nodes", nodes(look).into_string()),
        ("peers", peers::part(&look.peers, &look.name).into_string()),
    ]
}

fn numbers(look: &Look) -> Markup {
    let group = look.stats.as_ref().ok().and_then(|stats| stats.groups.iter().find(|group| group.service == look.name));
    let total = group.map(|group| group.total.clone()).unwrap_or_default();
    let points = look.asked.range.points(group.map_or(&[][..], |group| &group.buckets), look.since_ms);
    let took = |ns: u64| if ns == 0 { "–".to_owned() } else { duration(ns) };
    let nodes = look.row.as_ref().map_or((0, 0), |row| (row.count(State::Ready), row.nodes.len()));
    html! {
        @if let Err(why) = &look.stats {
            p.notice.warn role="status" { "No numbers of requests: " (why) }
        }
        @if let Some(row) = &look.row {
            @if row.is_broken { p.notice.bad role="status" { "Its breaker is open: it fails as a whole, so requests are refused for a while." } }
            @if row.shed_percent > 0 { p.notice.warn role="status" { "It is slow, so " (row.shed_percent) "% of the requests are refused." } }
            @if row.waiting > 0 { p.notice.warn role="status" { (row.waiting) " requests wait until a node has room." } }
        }
        dl.figures {
            div { dt { "Requests" } dd { (pace(total.count, look.asked.range.seconds())) } }
            div { dt { "Failed" } dd.bad[total.errors > 0] { (share(total.errors, total.count)) } }
            div { dt { "p50" } dd { (took(total.p50_ns)) } }
            div { dt { "p95" } dd { (took(total.p95_ns)) } }
            div { dt { "p99" } dd { (took(total.p99_ns)) } }
            div { dt { "Nodes ready" } dd { (grouped(nodes.0 as u64)) " " small { "of " (grouped(nodes.1 as u64)) } } }
        }
        div.columns.charts {
            figure.card {
                figcaption { "Requests" }
                (spark::rate(&points, look.asked.range.step_ms()))
                p.soft { "at most " (pace(points.iter().map(|point| point.count).max().unwrap_or(0), look.asked.range.step_ms() as f64 / 1e3)) }
            }
            figure.card {
                figcaption { "Duration: p95, and p50 below" }
                (spark::latency(&points))
                p.soft { "p95 at most " (took(points.iter().map(|point| point.p95_ns).max().unwrap_or(0))) }
            }
        }
    }
}

fn nodes(look: &Look) -> Markup {
    let all = look.row.iter().flat_map(|row| &row.nodes);
    let mut found: Vec<&NodeRow> = all.filter(|node| look.asked.takes(node)).collect();
    found.sort_by_key(|node| node.state); // stable: the worst first, each in the order of joining
    let pages = found.len().div_ceil(PAGE).max(1);
    let number = look.asked.page.clamp(1, pages);
    let address = |number: usize| {
        format!(
            "/services/{}?range={}&page={number}{}",
            encoded(&look.name),
            look.asked.range.word(),
            look.asked.rest()
        )
    };
    html! {
        @if found.is_empty() {
            div.empty {
                @if look.row.is_none() { p { "No node of it is registered. Start one:" } code { "goms service " (told(&look.name)) } }
                @else { p { "No node is like that." } p { a href={ "/services/" (encoded(&look.name)) } { "Show every node" } } }
            }
        } @else {
            div.scroll { table {
                thead { tr {
                    th scope="col" { "Address" } th scope="col" { "State" } th.num scope="col" { "In flight" }
                    th.num scope="col" { "Answered" } th scope="col" { "Version" } th scope="col" { "Zone" } th.num scope="col" { "Age" }
                } }
                tbody { @for node in found.iter().skip((number - 1) * PAGE).take(PAGE) { (tr(node, look.now_ms)) } }
            } }
            @if pages > 1 {
                nav.pager aria-label="Pages" {
                    @if number > 1 { a href=(address(number - 1)) rel="prev" { "← Previous" } }
                    span { "Page " (number) " of " (pages) ", " (grouped(found.len() as u64)) " nodes" }
                    @if number < pages { a href=(address(number + 1)) rel="next" { "Next →" } }
                }
            }
        }
    }
}

fn tr(node: &NodeRow, now_ms: i64) -> Markup {
    let count = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), grouped);
    html! {
        tr {
            td.mono title=(node.name) { a href={ "/traces?node=" (encoded(&node.name)) } { (node.address) } }
            td { span class=(node.state.class()) title=(node.state.meaning()) { (node.state.word()) } }
            td.num { (count(node.in_flight)) }
            td.num { (count(node.answered)) }
            td { @if node.version.is_empty() { span.soft { "–" } } @else { (told(&node.version)) } }
            td { @if node.zone.is_empty() { span.soft { "–" } } @else { (told(&node.zone)) } }
            td.num { (age(node.started_ms, now_ms)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: State, version: &str) -> NodeRow {
        NodeRow {
            name: "10.0.0.1:1_10.0.0.1:2".into(),
            address: "10.0.0.1:2".into(),
            state,
            version: version.into(),
            zone: "east".into(),
            started_ms: 0,
            in_flight: None,
            answered: None,
        }
    }

    #[test]
    fn a_filter_looks_at_states_and_words() {
        let asked = |state: &str, q: &str| Asked { state: state.into(), q: q.into(), ..Asked::default() };
        assert!(asked("", "").takes(&node(State::Ready, "1.0")));
        assert!(asked("ejected", " 1.0 ").takes(&node(State::Ejected, "1.0")));
        assert!(!asked("ejected", "").takes(&node(State::Ready, "1.0")));
        assert!(
            asked("", "eas").takes(&node(State::Ready, "1.0")) && !asked("", "west").takes(&node(State::Ready, "1.0"))
        );
        assert_eq!(asked("ready", "a&b").rest(), "&state=ready&q=a%26b");
    }

    #[test]
    fn many_nodes_are_paged_the_worst_first() {
        let mut nodes = vec![node(State::Ready, "1"); 120];
        nodes.push(node(State::Ejected, "<b>"));
        let look = Look {
            name: "user".into(),
            asked: Asked { page: 1, ..Asked::default() },
            now_ms: 0,
            since_ms: 0,
            row: Some(ServiceRow { nodes, ..ServiceRow::default() }),
            stats: Ok(Stats::default()),
            peers: Arc::default(),
        };
        let shown = super::nodes(&look).into_string();
        assert_eq!(shown.matches("<tr>").count(), 51);
        assert!(shown.contains("Page 1 of 3, 121 nodes") && shown.contains("&lt;b&gt;"), "{shown}");
        assert!(shown.find("ejected") < shown.find("ready"), "{shown}");
        let last = super::nodes(&Look { asked: Asked { page: 99, ..Asked::default() }, ..look }).into_string();
        assert!(last.contains("Page 3 of 3") && last.matches("<tr>").count() == 22, "{last}");
    }
}
