//! `goms trace graph`: who calls whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::stats::{errors, moment, rate};
use super::{counted_range, duration, grouped, printable, unavailable};
use crate::app::table::render;
use crate::app::{AppError, output};
use crate::cli::{GraphArgs, GraphForm};
use crate::store::{Group, GroupBy, Stats, StatsQuery, TraceStore};

/// Who calls a gateway.
const OUTSIDE: &str = "client";

pub async fn run(store: &dyn TraceStore, args: &GraphArgs) -> Result<(), AppError> {
    let range = counted_range(args.range);
    let mut filter = args.filter.query();
    (filter.since_ms, filter.until_ms) = (Some(range.0), Some(range.1));
    let query = StatsQuery { filter, by: GroupBy::Edge, bucket_ms: None };
    let stats = store.stats(&query).await.map_err(unavailable)?;
    let seconds = (range.1 - range.0) as f64 / 1e3;
    match args.output {
        GraphForm::Json => output::json(&stats),
        GraphForm::Dot => output::text(&dot(&stats, seconds)),
        GraphForm::Mermaid => output::text(&mermaid(&stats, seconds)),
        GraphForm::Table => {
            output::text(&tree(&stats, seconds));
            let zone = TimeZone::system();
            let (from, to) = (moment(range.0, range, &zone), moment(range.1, range, &zone));
            output::line(&match stats.groups.len() {
                0 => format!("no calls from {from} to {to}; widen the range with --since, or see `goms trace search`"),
                edges => format!("{edges} edges from {from} to {to}"),
            });
        }
    }
    Ok(())
}

/// A node of the graph: a service, or `None` for all clients.
type Name<'a> = Option<&'a str>;

fn name(name: Name<'_>) -> String {
    printable(name.unwrap_or(OUTSIDE))
}

/// The graph as a tree from the clients on. A service that several call is opened below its first caller only.
fn tree(stats: &Stats, seconds: f64) -> String {
    let mut calls: BTreeMap<Name<'_>, Vec<&Group>> = BTreeMap::new();
    for group in &stats.groups {
        calls.entry(group.caller.as_deref()).or_default().push(group);
    }
    if calls.is_empty() {
        return String::new();
    }
    let called: BTreeSet<&str> = stats.groups.iter().map(|group| group.service.as_str()).collect();
    // callers that nobody calls begin; what only circles reach comes behind them
    let begins = |caller: &Name<'_>| caller.is_none_or(|name| !called.contains(name));
    let roots = calls.keys().filter(|caller| begins(caller)).chain(calls.keys().filter(|caller| !begins(caller)));
    let mut rows = Vec::new();
    let mut opened: BTreeSet<Name<'_>> = BTreeSet::new();
    for root in roots.copied() {
        if opened.contains(&root) {
            continue;
        }
        rows.push(vec![name(root)]);
        branch(root, "", &calls, &mut opened, seconds, &mut rows);
    }
    render(&["CALLS", "REQUESTS", "RATE/S", "ERRORS", "P50", "P95"], &rows)
}

fn branch<'a>(
    caller: Name<'a>,
    before: &str,
    calls: &BTreeMap<Name<'a>, Vec<&'a Group>>,
    opened: &mut BTreeSet<Name<'a>>,
    seconds: f64,
    rows: &mut Vec<Vec<String>>,
) {
    opened.insert(caller);
    let edges = calls.get(&caller).map_or(&[][..], Vec::as_slice);
    for (index, group) in edges.iter().enumerate() {
        let is_last = index + 1 == edges.len();
        let service = group.service.as_str();
        let has_calls = calls.contains_key(&Some(service));
        let is_open = opened.contains(&Some(service));
        let more = if has_calls && is_open { " …" } else { "" };
        let corner = if is_last { "└─ " } else { "├─ " };
        let mut cells = vec![format!("{before}{corner}{}{more}", printable(service))];
        cells.extend(numbers(group, seconds));
        rows.push(cells);
        // deeper than any terminal is wide
        if has_calls && !is_open && before.chars().count() < 120 {
            let before = format!("{before}{}", if is_last { "   " } else { "│  " });
            branch(Some(service), &before, calls, opened, seconds, rows);
        }
    }
}

fn numbers(group: &Group, seconds: f64) -> [String; 5] {
    let took = |ns: u64| if ns == 0 { "-".to_owned() } else { duration(ns) };
    let total = &group.total;
    [grouped(total.count), rate(total.count, seconds), errors(total), took(total.p50_ns), took(total.p95_ns)]
}

/// `12.3/s, 0% errors, p95 4.56ms`.
fn label(group: &Group, seconds: f64) -> String {
    let [_, rate, errors, _, p95] = numbers(group, seconds);
    format!("{rate}/s, {errors} errors, p95 {p95}")
}

/// For Graphviz: <https://graphviz.org/doc/info/lang.html>; edges with errors are red.
fn dot(stats: &Stats, seconds: f64) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from("digraph calls {\n  rankdir=LR;\n  node [shape=box];\n");
    if stats.groups.iter().any(|group| group.caller.is_none()) {
        // an id that no service has: its names are not empty
        text.push_str(&format!("  \"\" [label=\"{OUTSIDE}\", shape=ellipse];\n"));
    }
    for group in &stats.groups {
        let caller = quoted(&printable(group.caller.as_deref().unwrap_or_default()));
        let callee = quoted(&printable(&group.service));
        let colour = if group.total.errors > 0 { ", color=red" } else { "" };
        // writing into a String cannot fail
        writeln!(text, "  {caller} -> {callee} [label={}{colour}];", quoted(&label(group, seconds)))
            .unwrap_or_default();
    }
    text + "}\n"
}

/// For Mermaid: <https://mermaid.js.org/syntax/flowchart.html>.
fn mermaid(stats: &Stats, seconds: f64) -> String {
    let mut ids: BTreeMap<Name<'_>, usize> = BTreeMap::new();
    for group in &stats.groups {
        for one in [group.caller.as_deref(), Some(group.service.as_str())] {
            let next = ids.len();
            ids.entry(one).or_insert(next);
        }
    }
    let quoted = |text: &str| text.replace('"', "#quot;");
    let mut text = String::from("flowchart LR\n");
    for (one, id) in &ids {
        writeln!(text, "  n{id}[\"{}\"]", quoted(&name(*one))).unwrap_or_default();
    }
    for group in &stats.groups {
        let (caller, callee) = (ids[&group.caller.as_deref()], ids[&Some(group.service.as_str())]);
        writeln!(text, "  n{caller} -->|\"{}\"| n{callee}", quoted(&label(group, seconds))).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Summary;

    fn edge(caller: Option<&str>, service: &str, errors: u64) -> Group {
        let total = Summary { count: 200, errors, p50_ns: 1_000_000, p95_ns: 2_000_000, p99_ns: 3_000_000 };
        Group { caller: caller.map(str::to_owned), service: service.to_owned(), total, buckets: Vec::new() }
    }

    fn stats(groups: Vec<Group>) -> Stats {
        Stats { groups, ..Stats::default() }
    }

    fn firsts(text: &str) -> Vec<&str> {
        text.lines()
            .skip(1)
            .map(|line| line.split("  ").find(|cell| !cell.is_empty()).unwrap_or_default().trim())
            .collect()
    }

    #[test]
    fn the_tree_begins_at_the_clients() {
        let calls = stats(vec![
            edge(None, "gateway", 0),
            edge(Some("gateway"), "order", 2),
            edge(Some("gateway"), "user", 0),
            edge(Some("order"), "user", 0),
        ]);
        assert_eq!(
            tree(&calls, 10.0),
            "CALLS          REQUESTS  RATE/S  ERRORS  P50     P95
client
└─ gateway     200       20.0    0%      1.00ms  2.00ms
   ├─ order    200       20.0    1.0%    1.00ms  2.00ms
   │  └─ user  200       20.0    0%      1.00ms  2.00ms
   └─ user     200       20.0    0%      1.00ms  2.00ms
"
        );
    }

    #[test]
    fn circles_end_and_lose_no_edge() {
        let calls = stats(vec![edge(Some("a"), "b", 0), edge(Some("b"), "a", 0), edge(Some("c"), "c", 0)]);
        assert_eq!(firsts(&tree(&calls, 1.0)), ["a", "└─ b", "└─ a …", "c", "└─ c …"]);
        assert_eq!(tree(&Stats::default(), 1.0), "");
    }

    #[test]
    fn names_cannot_break_out_of_a_drawing() {
        let calls = stats(vec![edge(None, "a\"]\\\n;b", 1)]);
        assert_eq!(
            dot(&calls, 100.0),
            "digraph calls {\n  rankdir=LR;\n  node [shape=box];\n  \"\" [label=\"client\", shape=ellipse];\n  \"\" -> \"a\\\"]\\\\ ;b\" [label=\"2.0/s, 0.50% errors, p95 2.00ms\", color=red];\n}\n"
        );
        let drawn = mermaid(&calls, 100.0);
        assert!(drawn.contains("n1[\"a#quot;]\\ ;b\"]") && drawn.contains("n0 -->|\"2.0/s"), "{drawn}");
    }
}
