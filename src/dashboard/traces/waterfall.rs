//! A trace as a waterfall: its spans below their callers, each where it ran.

use std::collections::{BTreeSet, HashMap};

use crate::reading::{Shown, Span, nest, pair};
use crate::store::FIRST_ERROR;

/// One span of it.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What ran.
    pub span: Span<'a>,
    /// How many callers are above it.
    pub depth: usize,
    /// From the first start on, in nanoseconds.
    pub offset_ns: u64,
    /// How long it took; `None` where nobody told its end.
    pub took_ns: Option<u64>,
    /// How it went.
    pub outcome: Outcome,
    /// Which try of how many, where a gateway asked several nodes in turn.
    pub attempt: Option<(usize, usize)>,
}

/// How a span went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It worked, or it did not say.
    Good,
    /// The caller's fault: 4xx.
    Refused,
    /// A status of 500 and above, or a span that says that it failed.
    Failed,
    /// It has begun, and no end has come.
    Open,
}

/// A trace.
#[derive(Clone, Debug)]
pub struct Waterfall<'a> {
    /// In the order of drawing.
    pub rows: Vec<Row<'a>>,
    /// From the first start to the last end, in nanoseconds; at least 1.
    pub whole_ns: u64,
    /// When it began, in nanoseconds of Unix time.
    pub began_ns: i128,
    /// The places of failed rows, the deepest first: that is where it went wrong.
    pub failed: Vec<usize>,
    /// Names of services, each once.
    pub services: BTreeSet<&'a str>,
}

impl<'a> Waterfall<'a> {
    /// Makes one of events in any order.
    pub fn of(events: &'a [Shown]) -> Self {
        let spans = pair(events);
        let began_ns = spans.iter().map(Span::began_ns).min().unwrap_or(0);
        let offset_ns = |span: &Span<'_>| u64::try_from(span.began_ns() - began_ns).unwrap_or(0);
        let whole_ns = spans.iter().map(|span| offset_ns(span).saturating_add(span.duration_ns())).max().unwrap_or(0);
        let rows: Vec<Row<'_>> = nest(&spans)
            .into_iter()
            .map(|(at, depth)| Row {
                span: spans[at],
                depth,
                offset_ns: offset_ns(&spans[at]),
                took_ns: spans[at].end.map(|_| spans[at].duration_ns()),
                outcome: outcome(&spans[at]),
                attempt: None,
            })
            .collect();
        let mut failed: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].outcome == Outcome::Failed).collect();
        failed.sort_by_key(|at| (std::cmp::Reverse(rows[*at].depth), *at));
        let services = events.iter().map(|event| event.service_name.as_str()).filter(|name| !name.is_empty()).collect();
        let mut waterfall = Self { rows, whole_ns: whole_ns.max(1), began_ns, failed, services };
        waterfall.number_attempts();
        waterfall
    }

    /// A gateway sends a request to one node; where several have it, it tried again.
    fn number_attempts(&mut self) {
        let gateways: BTreeSet<&str> = self
            .rows
            .iter()
            .filter(|row| row.span.is_request())
            .filter_map(|row| row.span.told())
            .map(|told| told.span_id.as_str())
            .filter(|id| !id.is_empty())
            .collect();
        let mut tries: HashMap<(&str, &str, &str), Vec<usize>> = HashMap::new();
        for (at, row) in self.rows.iter().enumerate() {
            let Some(told) = row.span.told() else { continue };
            if told.event.starts_with("service.") && gateways.contains(told.parent_id.as_str()) {
                tries.entry((&told.parent_id, &told.service_name, &told.action)).or_default().push(at);
            }
        }
        for places in tries.into_values().filter(|places| places.len() > 1) {
            for (number, at) in places.iter().enumerate() {
                self.rows[*at].attempt = Some((number + 1, places.len()));
            }
        }
    }

    /// The row that stands for the whole: the first gateway's, or else the first.
    pub fn root(&self) -> Option<&Row<'a>> {
        self.rows.iter().find(|row| row.span.is_request()).or(self.rows.first())
    }
}

fn outcome(span: &Span<'_>) -> Outcome {
    let Some(end) = span.end else { return Outcome::Open };
    match end.status {
        Some(status) if status >= FIRST_ERROR => Outcome::Failed,
        _ if !end.span.error.is_empty() => Outcome::Failed,
        Some(400..FIRST_ERROR) => Outcome::Refused,
        _ => Outcome::Good,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An event of a span.
    pub fn event(kind: &str, service: &str, span: &str, parent: &str, time_ms: i64, end: Option<(u16, u64)>) -> Shown {
        Shown {
            request_id: "r".into(),
            event: kind.into(),
            service_name: service.into(),
            action: "user/login".into(),
            span_id: span.into(),
            parent_id: parent.into(),
            time_ms,
            status: end.map(|(status, _)| status),
            duration_ns: end.map(|(_, took_ms)| took_ms * 1_000_000),
            ..Shown::default()
        }
    }

    #[test]
    fn each_span_stands_where_it_ran_and_errors_are_found_deepest_first() {
        let events = [
            event("request.start", "gateway", "a", "", 1_000, None),
            event("service.start", "user", "b", "a", 1_010, None),
            event("service.end", "user", "b", "a", 1_030, Some((500, 20))),
            event("service.start", "user", "c", "a", 1_031, None),
            event("span.end", "user", "d", "c", 1_039, Some((200, 5))),
            event("service.end", "user", "c", "a", 1_040, Some((404, 9))),
            event("request.end", "gateway", "a", "", 1_050, Some((502, 50))),
        ];
        let drawn = Waterfall::of(&events);
        let rows: Vec<_> = drawn.rows.iter().map(|row| (row.depth, row.offset_ns / 1_000_000, row.outcome)).collect();
        let wanted =
            [(0, 0, Outcome::Failed), (1, 10, Outcome::Failed), (1, 31, Outcome::Refused), (2, 34, Outcome::Good)];
        assert_eq!(rows, wanted);
        assert_eq!((drawn.whole_ns, drawn.began_ns), (50_000_000, 1_000_000_000));
        assert_eq!(drawn.failed, [1, 0], "the service's error explains the gateway's");
        let attempts: Vec<_> = drawn.rows.iter().map(|row| row.attempt).collect();
        assert_eq!(attempts, [None, Some((1, 2)), Some((2, 2)), None]);
        assert_eq!(drawn.services.into_iter().collect::<Vec<_>>(), ["gateway", "user"]);
    }

    #[test]
    fn what_has_no_end_or_no_duration_is_there_too() {
        let go = Shown { duration_ns: None, ..event("request.end", "gateway", "", "", 1_005, Some((200, 0))) };
        let events = [
            event("request.start", "gateway", "", "", 1_000, None),
            event("service.start", "user", "", "", 1_002, None),
            go,
        ];
        let drawn = Waterfall::of(&events);
        let rows: Vec<_> = drawn.rows.iter().map(|row| (row.depth, row.took_ns, row.outcome)).collect();
        assert_eq!(rows, [(0, Some(0), Outcome::Good), (1, None, Outcome::Open)]);
        assert!(drawn.whole_ns >= 1 && Waterfall::of(&[]).root().is_none());
    }
}
