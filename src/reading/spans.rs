//! A trace's spans: each start event with its end, and who called whom.

use std::collections::{HashMap, VecDeque};

use super::Shown;

/// A start event and its end, or one of them alone.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Where it began; `None` for a span of another program, and for one whose start was lost.
    pub start: Option<&'a Shown>,
    /// Where it ended; `None` while it runs, and where the end was lost.
    pub end: Option<&'a Shown>,
}

impl<'a> Span<'a> {
    /// The event that tells who and what; a span has at least one.
    #[must_use]
    pub fn told(&self) -> Option<&'a Shown> {
        self.start.or(self.end)
    }

    /// When it began, in nanoseconds of Unix time; 0 for a span of nothing.
    #[must_use]
    pub fn began_ns(&self) -> i128 {
        self.told().map_or(0, Shown::began_ns)
    }

    /// How long it took; 0 where that is not known.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end.and_then(|end| end.duration_ns).unwrap_or(0)
    }

    /// Whether it is a gateway's.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.told().is_some_and(|told| told.event.starts_with("request."))
    }
}

/// What a start and its end have in common: an original's events have no span, so its service and path tell.
#[derive(PartialEq, Eq, Hash)]
enum Common<'a> {
    Span(&'a str, &'a str),
    Call(&'a str, &'a str, &'a str, &'a str),
}

impl<'a> Common<'a> {
    fn of(event: &'a Shown) -> Self {
        let kind = event.event.split('.').next().unwrap_or_default();
        if event.span_id.is_empty() {
            Self::Call(kind, &event.request_id, &event.service_name, &event.request.url)
        } else {
            Self::Span(kind, &event.span_id)
        }
    }
}

/// Joins each start with the end of the same span; in the order of starting.
#[must_use]
pub fn pair(events: &[Shown]) -> Vec<Span<'_>> {
    let mut ends: HashMap<Common<'_>, VecDeque<&Shown>> = HashMap::new();
    for end in events.iter().filter(|event| event.is_end()) {
        ends.entry(Common::of(end)).or_default().push_back(end);
    }
    let mut spans: Vec<Span<'_>> = Vec::new();
    for start in events.iter().filter(|event| event.is_start()) {
        let end = ends.get_mut(&Common::of(start)).and_then(VecDeque::pop_front);
        spans.push(Span { start: Some(start), end });
    }
    // ends without a start, in the order of the events
    for end in events.iter().filter(|event| event.is_end()) {
        let left = ends.get_mut(&Common::of(end));
        if let Some(left) = left.filter(|left| left.front().is_some_and(|front| std::ptr::eq(*front, end))) {
            left.pop_front();
            spans.push(Span { start: None, end: Some(end) });
        }
    }
    // the gateway's first, then in the order of starting; one millisecond may hold several starts
    spans.sort_by_key(|span| (span.began_ns(), !span.is_request()));
    spans
}

/// The spans in the order of drawing with their depth: each below its caller, callees in the order of starting. A span
/// whose caller is not here stands at the left; an original's service, which names none, below its request.
#[must_use]
pub fn nest(spans: &[Span<'_>]) -> Vec<(usize, usize)> {
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
