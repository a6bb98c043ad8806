//! A trace's timeline in the terminal: one line a span below its caller's, its bar where it ran.

use std::collections::{HashMap, HashSet};

use super::{Shown, duration, printable};
use crate::app::table::render;

/// Columns of the bars.
const WIDTH: usize = 24;
/// A chain of calls deeper than this is drawn no further to the right.
const MAX_INDENT: usize = 8;

/// A start event and its end, or one of them alone.
struct Span<'a> {
    start: Option<&'a Shown>,
    end: Option<&'a Shown>,
}

impl<'a> Span<'a> {
    /// The event that tells who and what; a span has at least one.
    fn told(&self) -> Option<&'a Shown> {
        self.start.or(self.end)
    }

    fn began_ns(&self) -> i128 {
        self.told().map_or(0, Shown::began_ns)
    }

    fn duration_ns(&self) -> u64 {
        self.end.and_then(|end| end.duration_ns).unwrap_or(0)
    }

    fn is_request(&self) -> bool {
        self.told().is_some_and(|told| told.event.starts_with("request."))
    }
}

/// Draws the events of one trace, oldest first; at least one.
pub fn draw(events: &[Shown]) -> String {
    let spans = pair(events);
    let begin_ns = spans.iter().map(Span::began_ns).min().unwrap_or(0);
    let offset_ns = |span: &Span<'_>| u64::try_from(span.began_ns() - begin_ns).unwrap_or(0);
    let whole_ns = spans.iter().map(|span| offset_ns(span) + span.duration_ns()).max().unwrap_or(0).max(1);
    let mut rows = Vec::new();
    for (at, indent) in nest(&spans) {
        let span = &spans[at];
        let Some(told) = span.told() else { continue };
        let branch = if indent == 0 { String::new() } else { "  ".repeat(indent.min(MAX_INDENT) - 1) + "└ " };
        rows.push(vec![
            branch + &printable(&told.service_name),
            span.end.map_or_else(|| "-".to_owned(), Shown::status_text),
            span.end.map_or_else(|| "no end".to_owned(), |_| duration(span.duration_ns())),
            bar(offset_ns(span), span.duration_ns(), whole_ns),
            told.line(),
        ]);
    }
    let mut text = head(events);
    text.push_str(&render(&["SERVICE", "STATUS", "TOOK", "", "REQUEST"], &rows));
    let kinds: Vec<String> = events.iter().map(|event| printable(&event.event)).collect();
    match kinds.len() {
        0..=12 => text.push_str(&format!("{} events: {}\n", events.len(), kinds.join(", "))),
        many => text.push_str(&format!("{many} events, {} spans\n", spans.len())),
    }
    text.push_str(&nodes(events));
    text
}

/// The id of the first request; of several of one trace also how many, and the trace's.
fn head(events: &[Shown]) -> String {
    let request = events.iter().find(|event| event.event.starts_with("request."));
    let Some(first) = request.or(events.first()) else { return String::new() };
    let mut text = format!("request {}  {}\n", printable(&first.request_id), printable(&first.time));
    let ids: HashSet<&str> = events.iter().map(|event| event.request_id.as_str()).collect();
    if ids.len() > 1 {
        text.push_str(&format!("trace {} with {} request ids\n", printable(&first.trace_id), ids.len()));
    }
    text
}

/// Who told it; beside the bars it would not fit into a terminal.
fn nodes(events: &[Shown]) -> String {
    let mut nodes: Vec<Vec<String>> = Vec::new();
    for event in events.iter().filter(|event| !event.node.is_empty()) {
        let node = vec![printable(&event.service_name), printable(&event.node)];
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if nodes.is_empty() { String::new() } else { render(&["SERVICE", "NODE"], &nodes) }
}

/// Joins each start with the end of the same span; an original's events have no span, so its service and path tell.
fn pair(events: &[Shown]) -> Vec<Span<'_>> {
    let mut ends: Vec<&Shown> = events.iter().filter(|event| event.is_end()).collect();
    let mut spans: Vec<Span<'_>> = Vec::new();
    for start in events.iter().filter(|event| event.is_start()) {
        let is_end = |end: &&Shown| {
            let same_kind = end.event.split('.').next() == start.event.split('.').next();
            same_kind
                && if start.span_id.is_empty() {
                    end.span_id.is_empty()
                        && end.request_id == start.request_id
                        && end.service_name == start.service_name
                        && end.request.url == start.request.url
                } else {
                    end.span_id == start.span_id
                }
        };
        let end = ends.iter().position(is_end).map(|at| ends.remove(at));
        spans.push(Span { start: Some(start), end });
    }
    spans.extend(ends.into_iter().map(|end| Span { start: None, end: Some(end) }));
    // the gateway's first, then in the order of starting; one millisecond may hold several starts
    spans.sort_by_key(|span| (span.began_ns(), !span.is_request()));
    spans
}

/// The spans in the order of drawing with their depth: each below its caller, callees in the order of starting. A span
/// whose caller is not here stands at the left; an original's service, which names none, below its request.
fn nest(spans: &[Span<'_>]) -> Vec<(usize, usize)> {
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut requests: HashMap<&str, usize> = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        let Some(told) = span.told() else { continue };
        if !told.span_id.is_empty() {
            by_id.entry(&told.span_id).or_default().push(at);
        }
        if span.is_request() {
            requests.entry(&told.request_id).or_insert(at);
        }
    }
    let parent_of = |at: usize| {
        let told = spans[at].told()?;
        if told.span_id.is_empty() && !spans[at].is_request() {
            return requests.get(told.request_id.as_str()).copied().filter(|parent| *parent != at);
        }
        // both halves of a call may have one id, as Zipkin's do: the server's own calls stand below it, and it below its client
        let halves = by_id.get(told.parent_id.as_str()).map_or(&[][..], Vec::as_slice);
        let others = || halves.iter().copied().filter(|half| *half != at);
        let is_service =
            |half: &usize| spans[*half].told().is_some_and(|other| other.service_name == told.service_name);
        if told.span_id == told.parent_id { others().next() } else { others().find(is_service).or(others().next()) }
    };
    let mut callees: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut roots = Vec::new();
    for at in 0..spans.len() {
        match parent_of(at) {
            Some(parent) => callees[parent].push(at),
            None => roots.push(at),
        }
    }
    let mut drawn = Vec::with_capacity(spans.len());
    let mut is_drawn = vec![false; spans.len()];
    // spans that name each other as callers have no root: the earliest of them begins
    for root in roots.into_iter().chain(0..spans.len()) {
        let mut waiting = vec![(root, 0)];
        while let Some((at, indent)) = waiting.pop() {
            if !std::mem::replace(&mut is_drawn[at], true) {
                drawn.push((at, indent));
                waiting.extend(callees[at].iter().rev().map(|callee| (*callee, indent + 1)));
            }
        }
    }
    drawn
}

fn bar(offset_ns: u64, duration_ns: u64, whole_ns: u64) -> String {
    let column = |ns: u64| usize::try_from(u128::from(ns) * WIDTH as u128 / u128::from(whole_ns)).unwrap_or(WIDTH);
    let from = column(offset_ns).min(WIDTH - 1);
    let to = column(offset_ns + duration_ns).clamp(from + 1, WIDTH);
    let mut text = String::from("|");
    text.extend((0..WIDTH).map(|at| if (from..to).contains(&at) { '█' } else { ' ' }));
    text.push('|');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, service: &str, span: &str, time_ms: i64, duration_ns: Option<u64>) -> Shown {
        Shown {
            request_id: "r".into(),
            event: kind.into(),
            service_name: service.into(),
            span_id: span.into(),
            time_ms,
            duration_ns,
            status: duration_ns.map(|_| 200),
            ..Shown::default()
        }
    }

    fn below(parent: &str, event: Shown) -> Shown {
        Shown { parent_id: parent.into(), ..event }
    }

    #[test]
    fn spans_pair_by_id_and_stand_where_they_ran() {
        let text = draw(&[
            event("request.start", "gateway", "a", 1_000, None),
            below("a", event("service.start", "user", "b", 1_010, None)),
            below("a", event("service.end", "user", "b", 1_030, Some(20_000_000))),
            event("request.end", "gateway", "a", 1_040, Some(40_000_000)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("gateway") && lines[2].contains(&format!("|{}|", "█".repeat(24))), "{text}");
        let user_bar = format!("|{}{}{}|", " ".repeat(6), "█".repeat(12), " ".repeat(6));
        assert!(lines[3].starts_with("└ user") && lines[3].contains(&user_bar), "{text}");
        assert!(lines[3].contains("20.00ms"), "{text}");
    }

    #[test]
    fn a_start_without_an_end_says_so() {
        assert!(draw(&[event("request.start", "gateway", "a", 1, None)]).contains("no end"));
    }

    #[test]
    fn spans_of_other_programs_stand_below_their_callers() {
        let named = |name: &str, event: Shown| Shown { name: name.into(), ..event };
        let text = draw(&[
            named("root", event("span.end", "web", "w", 1_040, Some(40_000_000))),
            below("w", event("service.start", "user", "b", 1_010, None)),
            below("b", named("SELECT", event("span.end", "user", "q", 1_020, Some(10_000_000)))),
            below("w", event("service.end", "user", "b", 1_030, Some(20_000_000))),
        ]);
        let lines: Vec<&str> = text.lines().skip(2).take(3).collect();
        assert!(lines[0].starts_with("web") && lines[0].ends_with("root"), "{text}");
        assert!(lines[1].starts_with("└ user"), "{text}");
        assert!(lines[2].starts_with("  └ user") && lines[2].ends_with("SELECT"), "{text}");
        assert!(lines[2].contains(&format!("|{}{}{}|", " ".repeat(6), "█".repeat(6), " ".repeat(12))), "{text}");
    }

    #[test]
    fn halves_of_a_call_with_one_id_stand_below_each_other() {
        // the server's clock is behind
        let text = draw(&[
            below("s", event("service.start", "back", "s", 1_000, None)),
            below("s", event("service.end", "back", "s", 1_010, Some(10_000_000))),
            below("s", event("span.end", "back", "q", 1_009, Some(5_000_000))),
            event("span.end", "front", "s", 1_020, Some(18_000_000)),
        ]);
        let starts: Vec<&str> =
            text.lines().skip(2).take(3).map(|line| line.split("  |").next().unwrap_or(line)).collect();
        assert!(starts[0].starts_with("front"), "{text}");
        assert!(starts[1].starts_with("└ back") && starts[2].starts_with("  └ back"), "{text}");
    }

    #[test]
    fn callers_that_are_missing_or_go_in_a_circle_lose_no_span() {
        let text = draw(&[
            below("gone", event("span.end", "alone", "x", 5, Some(1))),
            below("two", event("span.end", "first", "one", 6, Some(1))),
            below("one", event("span.end", "second", "two", 7, Some(1))),
            below("self", event("span.end", "itself", "self", 8, Some(1))),
        ]);
        for service in ["alone", "first", "second", "itself"] {
            assert_eq!(text.lines().filter(|line| line.contains(service)).count(), 1, "{text}");
        }
    }

    #[test]
    fn an_originals_service_stands_below_its_request() {
        let text = draw(&[
            event("request.start", "gateway", "", 1, None),
            event("service.start", "user", "", 1, None),
            event("service.end", "user", "", 2, Some(1_000_000)),
            event("request.end", "gateway", "", 3, Some(2_000_000)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("gateway") && lines[3].starts_with("└ user"), "{text}");
    }
}
