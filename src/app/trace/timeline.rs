//! A trace's timeline in the terminal: one line a span below its caller's, its bar where it ran.

use std::collections::HashSet;

use super::{Shown, duration, printable};
use crate::app::table::render;
use crate::reading::{Span, nest, pair};

/// Columns of the bars.
const WIDTH: usize = 24;
/// A chain of calls deeper than this is drawn no further to the right.
const MAX_INDENT: usize = 8;

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
