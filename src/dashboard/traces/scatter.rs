//! The scatter plot of a search: a point an event, by when it ended and how long it took.
//!
//! A range may hold millions; then it shows some: of each slice of the range the newest, of some longer slices the newest
//! that failed, and of the whole range the slowest. Durations are on a log scale. A point is a line of no length with a round cap (failed: a
//! square one, in red), so it keeps its shape however wide the plot is drawn.

use std::collections::{BTreeMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use maud::{Markup, html};

use crate::figures::{duration, grouped};
use crate::reading::Shown;
use crate::store::{FIRST_ERROR, Order, Page, Query, StoreError, TraceStore};

/// So many are all shown.
const ALL: usize = 300;
/// Slices, and events of each; of those that failed; of the slowest: some 70 KB of the page.
const SLICES: i64 = 30;
const OF_SLICE: usize = 7;
const FAILED_SLICES: i64 = 15;
const FAILED_OF_SLICE: usize = 4;
const SLOWEST: usize = 40;
/// Queries that the store has at once.
const AT_ONCE: usize = 8;
/// The plot's own units.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 200.0;
const TICKS: i64 = 5;
/// Shorter ones stand at the bottom.
const SHORTEST_NS: u64 = 1_000;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    request_id: String,
    line: String,
    service: String,
    time_ms: i64,
    took_ns: u64,
    status: Option<u16>,
    is_failed: bool,
}

impl Point {
    fn of(shown: &Shown) -> Option<Self> {
        Some(Self {
            request_id: shown.request_id.clone(),
            line: shown.line().chars().take(60).collect(),
            service: shown.service_name.chars().take(40).collect(),
            time_ms: shown.time_ms,
            took_ns: shown.duration_ns?,
            status: shown.status,
            is_failed: shown.status.is_some_and(|status| status >= FIRST_ERROR) || !shown.span.error.is_empty(),
        })
    }
}

/// Points of the range `since_ms..until_ms`, of the events that a query is about.
///
/// # Errors
/// Those of the store.
pub async fn points(store: &dyn TraceStore, query: &Query, range: (i64, i64)) -> Result<Vec<Point>, StoreError> {
    let least = Some(query.min_duration_ns.unwrap_or(0));
    let base = Query { after: None, min_duration_ns: least, order: Order::Newest, ..query.clone() };
    let whole = |limit, order| Query { since_ms: Some(range.0), until_ms: Some(range.1), limit, order, ..base.clone() };
    let all = store.query(&whole(ALL, Order::Newest)).await?;
    if all.next.is_none() {
        return Ok(all.events.iter().filter_map(|event| Point::of(&Shown::read(event))).collect());
    }
    let sliced = |count, limit, status: Option<(u16, u16)>| {
        let of = Query { limit, status, ..base.clone() };
        slices(range, count).map(move |(since, until)| Query {
            since_ms: Some(since),
            until_ms: Some(until),
            ..of.clone()
        })
    };
    let mut queries: Vec<Query> = sliced(SLICES, OF_SLICE, query.status).collect();
    queries.push(whole(SLOWEST, Order::Slowest));
    if let Some(failed) = failed(query.status) {
        queries.extend(sliced(FAILED_SLICES, FAILED_OF_SLICE, Some(failed)));
    }
    let reads = stream::iter(queries).map(|query| async move { store.query(&query).await });
    let pages: Vec<Page> = reads.buffered(AT_ONCE).try_collect().await?;
    let mut known = HashSet::new();
    let read = pages.iter().flat_map(|page| &page.events).map(|event| (Shown::read(event), event));
    let once = read.filter(|(shown, event)| known.insert(shown.key(event).to_owned()));
    Ok(once.filter_map(|(shown, _)| Point::of(&shown)).collect())
}

/// The part of a wanted range of statuses that counts as failed.
fn failed(wanted: Option<(u16, u16)>) -> Option<(u16, u16)> {
    let (low, high) = wanted.unwrap_or((FIRST_ERROR, 599));
    (high >= FIRST_ERROR).then_some((low.max(FIRST_ERROR), high))
}

fn slices((since, until): (i64, i64), count: i64) -> impl Iterator<Item = (i64, i64)> {
    let length = (until.saturating_sub(since)).max(1);
    let at =
        move |part: i64| since + i64::try_from(i128::from(length) * i128::from(part) / i128::from(count)).unwrap_or(0);
    (0..count).map(move |part| (at(part), at(part + 1))).filter(|(since, until)| since < until)
}

/// Draws them. `total` is how many there are in all; `label` writes a time.
pub fn draw(points: &[Point], range: (i64, i64), total: u64, label: impl Fn(i64) -> String) -> Markup {
    if points.is_empty() {
        return html! {};
    }
    let scale = Scale::of(points);
    let length = (range.1 - range.0).max(1) as f64;
    let x = |point: &Point| (point.time_ms - range.0) as f64 / length * WIDTH;
    let failed = points.iter().filter(|point| point.is_failed).count();
    // the failed ones last, so that they lie on top
    let mut ordered: BTreeMap<(bool, usize), &Point> = BTreeMap::new();
    ordered.extend(points.iter().enumerate().map(|(at, point)| ((point.is_failed, at), point)));
    let sample = if (points.len() as u64) < total { "a sample with the slowest and the failed" } else { "all of them" };
    html! {
        figure.scatter {
            figcaption {
                "Durations of " (grouped(points.len() as u64)) " of " (grouped(total)) " events, " (sample)
                span.legend { span.key.ok { "worked" } span.key.failed { "failed (" (failed) ")" } }
            }
            div.plot {
                ol.y aria-hidden="true" { @for decade in scale.labels() { li { (decade) } } }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="group"
                    aria-label="Durations over time; the list below has the same requests in words"
                    data-since=(range.0) data-until=(range.1) {
                    @for step in 0..=scale.decades { (gridline(HEIGHT * f64::from(step) / f64::from(scale.decades))) }
                    @for point in ordered.values() { (mark(point, x(point), scale.y(point.took_ns))) }
                }
                ol.x aria-hidden="true" {
                    @for tick in 0..TICKS { li { (label(range.0 + (range.1 - range.0) / (TICKS - 1) * tick)) } }
                }
            }
        }
    }
}

fn gridline(y: f64) -> Markup {
    html! { path.grid d={ "M0 " (format!("{y:.1}")) "H" (WIDTH) } {} }
}

fn mark(point: &Point, x: f64, y: f64) -> Markup {
    let class = if point.is_failed { "failed" } else { "ok" };
    let status = point.status.map_or_else(String::new, |status| format!(" {status}"));
    html! {
        a href={ "/traces/" (super::segment(&point.request_id)) } tabindex="-1" {
            path class=(class) d={ "M" (format!("{x:.1} {y:.1}")) "h0" } {
                title { (point.service) ": " (point.line) (status) ", " (duration(point.took_ns)) }
            }
        }
    }
}

/// Whole decades of nanoseconds from the shortest to the longest.
struct Scale {
    lowest: i32,
    decades: u8,
}

impl Scale {
    fn of(points: &[Point]) -> Self {
        let decade = |ns: u64| ns.max(SHORTEST_NS).ilog10();
        let lowest = points.iter().map(|point| decade(point.took_ns)).min().unwrap_or(0);
        let highest = points.iter().map(|point| decade(point.took_ns) + 1).max().unwrap_or(1);
        let decades = u8::try_from((highest - lowest).max(1)).unwrap_or(u8::MAX);
        Self { lowest: i32::try_from(lowest).unwrap_or(0), decades }
    }

    /// From the top, where the longest are.
    fn y(&self, took_ns: u64) -> f64 {
        let part = (took_ns.max(SHORTEST_NS) as f64).log10() - f64::from(self.lowest);
        HEIGHT * (1.0 - part / f64::from(self.decades))
    }

    /// The longest first.
    fn labels(&self) -> Vec<String> {
        let word = |exponent: i32| match exponent {
            0..3 => format!("{}ns", 10_u32.pow(exponent.unsigned_abs())),
            3..6 => format!("{}µs", 10_u32.pow((exponent - 3).unsigned_abs())),
            6..9 => format!("{}ms", 10_u32.pow((exponent - 6).unsigned_abs())),
            _ => format!("{}s", 10_u64.pow((exponent - 9).unsigned_abs().min(10))),
        };
        (0..=i32::from(self.decades)).rev().map(|step| word(self.lowest + step)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Memory;
    use serde_json::json;

    fn point(took_ns: u64, time_ms: i64, is_failed: bool) -> Point {
        Point {
            request_id: "\"><script>".into(),
            line: "GET /<b>".into(),
            service: "user".into(),
            time_ms,
            took_ns,
            status: Some(200),
            is_failed,
        }
    }

    #[test]
    fn decades_are_marked_and_points_stand_between_them() {
        let points = [point(2_000, 0, false), point(10_000_000, 100, true)];
        let scale = Scale::of(&points);
        assert_eq!(scale.labels(), ["100ms", "10ms", "1ms", "100µs", "10µs", "1µs"]);
        assert!((scale.y(1_000) - HEIGHT).abs() < 1e-9 && (scale.y(100_000_000)).abs() < 1e-9);
        let svg = draw(&points, (0, 100), 5, |ms| ms.to_string()).into_string();
        assert!(svg.contains("d=\"M1000.0 40.0h0\"") && svg.contains("class=\"failed\""), "{svg}");
        assert!(svg.contains("2 of 5 events") && !svg.contains("<script>") && !svg.contains("<b>"), "{svg}");
        assert_eq!(draw(&[], (0, 1), 0, |ms| ms.to_string()).into_string(), "");
    }

    #[test]
    fn a_range_falls_into_slices_without_gaps() {
        let cut: Vec<_> = slices((1_000, 2_005), 10).collect();
        assert_eq!((cut.len(), cut[0].0, cut[9].1), (10, 1_000, 2_005));
        assert!(cut.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!(slices((5, 8), 10).collect::<Vec<_>>(), [(5, 6), (6, 7), (7, 8)]);
        assert_eq!(failed(None), Some((500, 599)));
        assert_eq!((failed(Some((404, 503))), failed(Some((200, 299)))), (Some((500, 503)), None));
    }

    #[tokio::test]
    async fn each_event_is_one_point_of_its_slice() {
        let event = |id: usize, took: serde_json::Value| {
            json!({"eventId": format!("e{id}"), "requestId": "r", "event": "service.end", "timeMs": 1_000 + id as i64,
                   "durationNs": took, "status": 200})
        };
        let store = Memory::of((0..1_000).map(|id| event(id, json!(5))).chain([event(5_000, json!(null))]));
        let found = points(&store, &Query::default(), (1_000, 2_000)).await.expect("points");
        let early = found.iter().filter(|point| point.time_ms < 1_033).count();
        assert_eq!(early, OF_SLICE);
        let mut times: Vec<i64> = found.iter().map(|point| point.time_ms).collect();
        times.dedup();
        assert_eq!(times.len(), found.len());
    }
}
