//! The service graph: who calls whom, how often, how well, how fast; live, each arrow a way to its traces.

mod draw;
mod layout;

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::live::Fragment;
use super::page::{Section, encoded, page, told};
use super::range::Range;
use super::{Dashboard, Visitor, in_time};
use crate::figures::{duration, grouped, pace, share};
use crate::store::{Group, GroupBy, Query, Stats, StatsQuery};

/// Edges of a drawing; who has more sees those with the most requests.
const MOST: usize = 120;

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    range: Range,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/graph", web::get().to(graph)).route("/live/graph", web::get().to(live));
}

async fn graph(dashboard: web::Data<Dashboard>, visitor: Visitor, asked: web::Query<Asked>) -> HttpResponse {
    let range = asked.range;
    let part = part(range, &edges(&dashboard, range).await);
    let main = html! {
        div.head data-live={ "/live/graph?range=" (range.word()) } {
            h1 { "Service graph" }
            div.end { (range.choice("/graph", "")) }
        }
        div.parts id="graph" { (part) }
    };
    page(&visitor, Section::Graph, "Service graph", &main)
}

async fn live(request: HttpRequest, dashboard: web::Data<Dashboard>, asked: web::Query<Asked>) -> HttpResponse {
    let range = asked.range;
    let of = dashboard.clone();
    dashboard.inner.live.answer(&request, format!("graph {}", range.word()), &dashboard.inner.shutdown, move || {
        Box::new(move || {
            let dashboard = of.clone();
            Box::pin(async move { fragments(&dashboard, range).await })
        })
    })
}

async fn fragments(dashboard: &Dashboard, range: Range) -> Vec<Fragment> {
    let edges = edges(dashboard, range).await;
    vec![("graph", part(range, &edges).into_string())]
}

async fn edges(dashboard: &Dashboard, range: Range) -> Result<Stats, String> {
    let store = dashboard.store().ok_or("this process is just starting")?;
    let (since, until) = range.at(jiff::Timestamp::now().as_millisecond());
    let filter = Query { since_ms: Some(since), until_ms: Some(until), ..Query::default() };
    let query = StatsQuery { filter, by: GroupBy::Edge, bucket_ms: None };
    in_time(store.stats(&query)).await
}

/// The calls in the order in which they are drawn.
struct Calls<'a> {
    edges: Vec<&'a Group>,
    /// `None`: all clients.
    names: Vec<Option<&'a str>>,
    /// Requests that each answered.
    answered: Vec<u64>,
}

impl<'a> Calls<'a> {
    fn new(stats: &'a Stats) -> Self {
        let mut edges: Vec<&Group> = stats.groups.iter().take(MOST).collect();
        edges.sort_by(|a, b| (&a.caller, &a.service).cmp(&(&b.caller, &b.service)));
        let both = |edge: &&'a Group| [edge.caller.as_deref(), Some(edge.service.as_str())];
        let names: BTreeSet<Option<&str>> = edges.iter().flat_map(both).collect();
        let mut answered: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        for edge in &edges {
            *answered.entry(Some(&edge.service)).or_default() += edge.total.count;
        }
        let names: Vec<_> = names.into_iter().collect();
        let answered = names.iter().map(|name| answered.get(name).copied().unwrap_or(0)).collect();
        Self { edges, names, answered }
    }

    fn place(&self, name: Option<&str>) -> usize {
        self.names.binary_search(&name).unwrap_or_default()
    }
}

fn part(range: Range, stats: &Result<Stats, String>) -> Markup {
    let stats = match stats {
        Ok(stats) => stats,
        Err(why) => return html! { p.notice.warn role="status" { "The traces cannot be read: " (why) } },
    };
    if stats.groups.is_empty() {
        return html! {
            section.card { div.empty {
                h2 { "No calls in " (range.told()) }
                p { "Send a request through a gateway, and the services that it passes show here. A longer range may show older ones." }
            } }
        };
    }
    let calls = Calls::new(stats);
    let edges: Vec<(usize, usize)> = calls
        .edges
        .iter()
        .map(|edge| (calls.place(edge.caller.as_deref()), calls.place(Some(&edge.service))))
        .collect();
    let layout = layout::layout(calls.names.len(), &edges);
    html! {
        @if stats.groups.len() > MOST {
            p.notice { "Drawn are the " (MOST) " pairs with the most requests of " (grouped(stats.groups.len() as u64)) "." }
        }
        section.card aria-label="Drawing" { div.scroll { (draw::draw(&calls, &layout, range)) } }
        section.card aria-label="Calls" {
            header { h2 { "Calls" } span.soft { "most requests first, over " (range.told()) } }
            div.scroll { table {
                thead { tr {
                    th scope="col" { "Caller" } th scope="col" { "Service" } th.num scope="col" { "Rate" }
                    th.num scope="col" { "Failed" } th.num scope="col" { "p50" } th.num scope="col" { "p95" } th scope="col" { span.visually-hidden { "Traces" } }
                } }
                tbody { @for group in stats.groups.iter().take(MOST) { (tr(group, range)) } }
            } }
        }
    }
}

fn tr(group: &Group, range: Range) -> Markup {
    let total = &group.total;
    let took = |ns: u64| if ns == 0 { "–".to_owned() } else { duration(ns) };
    html! {
        tr {
            td { @match &group.caller { Some(caller) => a href={ "/services/" (encoded(caller)) } { (told(caller)) }, None => span.soft { (name(None)) } } }
            td { a href={ "/services/" (encoded(&group.service)) } { (told(&group.service)) } }
            td.num { (pace(total.count, range.seconds())) }
            td.num.bad[total.errors > 0] { (share(total.errors, total.count)) }
            td.num { (took(total.p50_ns)) }
            td.num { (took(total.p95_ns)) }
            td { a href=(traces(group, range)) { "Traces" } }
        }
    }
}

/// What a box is called.
fn name(of: Option<&str>) -> String {
    of.unwrap_or("clients").to_owned()
}

/// The traces behind an edge.
fn traces(group: &Group, range: Range) -> String {
    let caller = group.caller.as_deref().map(|caller| format!("&caller={}", encoded(caller))).unwrap_or_default();
    format!("/traces?service={}{caller}&since={}", encoded(&group.service), range.word())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Summary;

    #[test]
    fn an_arrow_leads_to_its_traces_and_names_are_text() {
        let edge = |caller: Option<&str>, service: &str, errors| Group {
            caller: caller.map(str::to_owned),
            service: service.to_owned(),
            total: Summary { count: 900, errors, p50_ns: 1_000_000, p95_ns: 2_000_000, p99_ns: 3_000_000 },
            buckets: Vec::new(),
        };
        let groups = vec![edge(None, "gateway", 0), edge(Some("gateway"), "<b>&\"", 9)];
        let drawn = part(Range::Quarter, &Ok(Stats { groups, ..Stats::default() })).into_string();
        assert!(drawn.contains("href=\"/traces?service=%3Cb%3E%26%22&amp;caller=gateway&amp;since=15m\""), "{drawn}");
        assert!(drawn.contains("href=\"/traces?service=gateway&amp;since=15m\""), "{drawn}");
        assert!(!drawn.contains("<b>") && drawn.contains("1/s · 2.00ms") && drawn.contains("1.0% failed"), "{drawn}");
        assert!(drawn.contains("clients → gateway: 1/s, 0% failed, p95 2.00ms"), "{drawn}");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let shown = part(Range::Quarter, &Err("no <consumer>".into())).into_string();
        assert!(shown.contains("The traces cannot be read: no &lt;consumer&gt;"), "{shown}");
        assert!(part(Range::Hour, &Ok(Stats::default())).into_string().contains("No calls in the last hour"));
    }
}
