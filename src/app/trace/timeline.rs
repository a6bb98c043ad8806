//! A request's timeline in the terminal: one line a span, its bar where it ran.

use super::Shown;
use crate::app::table::render;

/// Columns of the bars.
const WIDTH: usize = 24;

/// A start event and its end.
struct Span<'a> {
    start: &'a Shown,
    end: Option<&'a Shown>,
}

impl Span<'_> {
    fn duration_ns(&self) -> u64 {
        self.end.and_then(|end| end.duration_ns).unwrap_or(0)
    }
}

/// Draws the events of one request, oldest first; at least one.
pub fn draw(events: &[Shown]) -> String {
    let spans = pair(events);
    let Some(first) = spans.first() else {
        return format!("{} events without a start\n", events.len());
    };
    let status = |span: &Span<'_>| {
        span.end.and_then(|end| end.status).map_or_else(|| "-".to_owned(), |status| status.to_string())
    };
    let begin_ms = spans.iter().map(|span| span.start.time_ms).min().unwrap_or(0);
    let whole_ns = spans.iter().map(|span| offset_ns(span, begin_ms) + span.duration_ns()).max().unwrap_or(0).max(1);
    let mut text = format!("request {}  {}\n", first.start.request_id, first.start.time);
    let rows: Vec<Vec<String>> = spans
        .iter()
        .map(|span| {
            vec![
                span.start.service_name.clone(),
                status(span),
                span.end.map_or_else(|| "no end".to_owned(), |_| duration(span.duration_ns())),
                bar(offset_ns(span, begin_ms), span.duration_ns(), whole_ns),
                span.start.request.line(),
            ]
        })
        .collect();
    text.push_str(&render(&["SERVICE", "STATUS", "TOOK", "", "REQUEST"], &rows));
    let kinds: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    text.push_str(&format!("{} events: {}\n", events.len(), kinds.join(", ")));
    // beside the bars they would not fit into a terminal
    let mut nodes: Vec<Vec<String>> = Vec::new();
    for Span { start, .. } in spans.iter().filter(|span| !span.start.node.is_empty()) {
        let node = vec![start.service_name.clone(), start.node.clone()];
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if !nodes.is_empty() {
        text.push_str(&render(&["SERVICE", "NODE"], &nodes));
    }
    text
}

fn offset_ns(span: &Span<'_>, begin_ms: i64) -> u64 {
    u64::try_from(span.start.time_ms - begin_ms).unwrap_or(0) * 1_000_000
}

/// Joins each start with the end of the same span; an original's events have no span, so its service and path tell.
fn pair(events: &[Shown]) -> Vec<Span<'_>> {
    let mut ends: Vec<&Shown> = events.iter().filter(|event| event.event.ends_with(".end")).collect();
    let mut spans: Vec<Span<'_>> = events
        .iter()
        .filter(|event| event.event.ends_with(".start"))
        .map(|start| {
            let is_end = |end: &&Shown| {
                let same_kind = end.event.split('.').next() == start.event.split('.').next();
                same_kind
                    && if start.span_id.is_empty() {
                        end.service_name == start.service_name && end.request.url == start.request.url
                    } else {
                        end.span_id == start.span_id
                    }
            };
            let end = ends.iter().position(is_end).map(|at| ends.remove(at));
            Span { start, end }
        })
        .collect();
    // the gateway's first, then in the order of starting; one millisecond may hold several starts
    spans.sort_by_key(|span| (span.start.time_ms, span.start.event != "request.start"));
    spans
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

/// `850ns`, `12.3µs`, `4.56ms`, `1.20s`.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{:.1}µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}ms", ns as f64 / 1e6),
        _ => format!("{:.2}s", ns as f64 / 1e9),
    }
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

    #[test]
    fn spans_pair_by_id_and_stand_where_they_ran() {
        let text = draw(&[
            event("request.start", "gateway", "a", 1_000, None),
            event("service.start", "user", "b", 1_010, None),
            event("service.end", "user", "b", 1_030, Some(20_000_000)),
            event("request.end", "gateway", "a", 1_040, Some(40_000_000)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("gateway") && lines[2].contains(&format!("|{}|", "█".repeat(24))), "{text}");
        let user_bar = format!("|{}{}{}|", " ".repeat(6), "█".repeat(12), " ".repeat(6));
        assert!(lines[3].starts_with("user") && lines[3].contains(&user_bar), "{text}");
        assert!(lines[3].contains("20.00ms"), "{text}");
    }

    #[test]
    fn a_start_without_an_end_says_so() {
        assert!(draw(&[event("request.start", "gateway", "a", 1, None)]).contains("no end"));
    }
}
