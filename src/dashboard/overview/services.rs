//! Every service with its rate, errors and durations, those that hurt most first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::Look;
use crate::dashboard::cluster::{ServiceRow, State};
use crate::dashboard::page::{encoded, told};
use crate::dashboard::spark;
use crate::figures::{duration, grouped, pace, share};
use crate::store::Group;

/// Services of the page; more would not be read.
const MOST: usize = 200;

struct Line<'a> {
    name: &'a str,
    row: Option<&'a ServiceRow>,
    group: Option<&'a Group>,
}

impl Line<'_> {
    /// Failed requests first, then the time that callers spent waiting: requests times p95. Then by name.
    fn impact(&self) -> (Reverse<u64>, Reverse<u64>) {
        let total = self.group.map(|group| &group.total);
        let time = total.map_or(0, |total| total.count.saturating_mul(total.p95_ns));
        (Reverse(total.map_or(0, |total| total.errors)), Reverse(time))
    }
}

pub(super) fn part(look: &Look) -> Markup {
    let lines = lines(look);
    let more = lines.len().saturating_sub(MOST);
    html! {
        header {
            h2 { "Services" }
            span.soft { "most failed requests first, then most time spent (requests × p95), over " (look.range.told()) }
        }
        @if lines.is_empty() {
            (nobody(look))
        } @else {
            div.scroll {
                table.services {
                    thead { tr {
                        th scope="col" { "Service" }
                        th scope="col" { "Nodes" }
                        th.chart scope="col" { "Requests" }
                        th.num scope="col" { "Rate" }
                        th.num scope="col" { "Failed" }
                        th.chart scope="col" { "Duration" }
                        th.num scope="col" { "p50" }
                        th.num scope="col" { "p95" }
                        th.num scope="col" { "p99" }
                    } }
                    tbody { @for line in lines.iter().take(MOST) { (tr(line, look)) } }
                }
            }
            @if more > 0 { p.pager { "and " (grouped(more as u64)) " more services with fewer requests" } }
            @if look.stats.as_ref().is_ok_and(|stats| stats.groups.is_empty()) { (quiet(look)) }
        }
    }
}

fn lines(look: &Look) -> Vec<Line<'_>> {
    let groups = look.stats.iter().flat_map(|stats| &stats.groups);
    let groups: BTreeMap<&str, &Group> = groups.map(|group| (group.service.as_str(), group)).collect();
    let known = look.services.iter().flat_map(|services| services.keys().map(String::as_str));
    let names: BTreeSet<&str> = known.chain(groups.keys().copied()).collect();
    let row = |name: &str| look.services.as_ref().and_then(|services| services.get(name));
    let mut lines: Vec<_> =
        names.into_iter().map(|name| Line { name, row: row(name), group: groups.get(name).copied() }).collect();
    lines.sort_by_key(Line::impact); // stable: names stay in order
    lines
}

fn tr(line: &Line<'_>, look: &Look) -> Markup {
    let address = format!("/services/{}", encoded(line.name));
    html! {
        tr {
            th scope="row" { a.name href=(address) { (told(line.name)) } " " (trouble(line.row)) }
            td { (nodes(line.row)) }
            @if let Some(group) = line.group {
                @let points = look.range.points(&group.buckets, look.since_ms);
                @let total = &group.total;
                td.chart { (spark::rate(&points, look.range.step_ms())) }
                td.num { (pace(total.count, look.range.seconds())) }
                td.num.bad[total.errors > 0] {
                    @if total.errors > 0 {
                        a.bad href={ "/traces?service=" (encoded(line.name)) "&status=5xx&since=" (look.range.word()) } {
                            (share(total.errors, total.count))
                        }
                    } @else { "0%" }
                }
                td.chart { (spark::latency(&points)) }
                @for ns in [total.p50_ns, total.p95_ns, total.p99_ns] {
                    td.num { @if ns > 0 { (duration(ns)) } @else { "–" } }
                }
            } @else {
                td.soft colspan="7" { "no requests" }
            }
        }
    }
}

fn trouble(row: Option<&ServiceRow>) -> Markup {
    html! {
        @if let Some(row) = row {
            @if row.is_broken { span.badge.bad title="it fails as a whole, so requests are refused for a while" { "breaker open" } " " }
            @if row.shed_percent > 0 { span.badge.warn title="it is slow, so a part of the requests is refused" { "sheds " (row.shed_percent) "%" } " " }
            @if row.waiting > 0 { span.badge.warn title="requests wait until a node has room" { (row.waiting) " waiting" } }
        }
    }
}

fn nodes(row: Option<&ServiceRow>) -> Markup {
    html! {
        @match row.map(|row| (row.count(State::Ready), row.nodes.len())) {
            None => span.badge.bad { "none" },
            Some((ready, all)) if ready == all => (grouped(all as u64)),
            Some((0, all)) => span.badge.bad { "0 of " (grouped(all as u64)) },
            Some((ready, all)) => span.badge.warn { (grouped(ready as u64)) " of " (grouped(all as u64)) },
        }
    }
}

fn nobody(look: &Look) -> Markup {
    html! {
        div.empty {
            @if look.services.is_none() {
                h2 { "The registry is not known yet" }
                p { "Nodes show here as soon as it answers; " code { "/readyz" } " says what it waits for." }
            } @else {
                h2 { "No service yet" }
                p { "Start one, and it shows here:" }
                code { "goms service user" }
            }
        }
    }
}

fn quiet(look: &Look) -> Markup {
    let gateway = look.services.as_ref().and_then(|services| services.get(super::GATEWAY)?.nodes.first());
    let door = gateway.map_or("127.0.0.1:8080", |node| node.address.as_str());
    html! {
        div.empty {
            p { "No requests in " (look.range.told()) ". Send one, and it shows here:" }
            code { "curl -i 'http://" (door) "/api/user/login' -d 'username=test'" }
        }
    }
}
