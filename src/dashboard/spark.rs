//! Small charts, drawn here as SVG: one line of a service's life beside its numbers.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::figures;
use crate::store::Summary;

/// Units of a chart's own coordinates; its size on the page is the style sheet's.
const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 28.0;
/// Room for half a line at the top and bottom.
const EDGE: f64 = 1.5;

/// Requests a second over time, and which part of them failed.
pub(super) fn rate(points: &[Summary], step_ms: i64) -> Markup {
    let seconds = step_ms as f64 / 1e3;
    let most = points.iter().map(|point| point.count).max().unwrap_or(0);
    let values: Vec<Option<f64>> = points.iter().map(|point| Some(point.count as f64)).collect();
    let failed: Vec<f64> = points.iter().map(|point| point.errors as f64).collect();
    let errors: u64 = points.iter().map(|point| point.errors).sum();
    let told = format!("requests, at most {}; {} failed", figures::pace(most, seconds), figures::grouped(errors));
    let top = (most as f64).max(1.0);
    html! {
        svg.spark viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(told) {
            path.area d=(area(&values, top)) {}
            path.line d=(line(&values, top)) {}
            @if errors > 0 { path.errors d=(bars(&failed, top)) {} }
        }
    }
}

/// How long requests took over time: the median below, of 95 in 100 above.
pub(super) fn latency(points: &[Summary]) -> Markup {
    let of = |ns: fn(&Summary) -> u64| {
        points.iter().map(|point| (point.count > 0).then(|| ns(point) as f64)).collect::<Vec<_>>()
    };
    let (p50, p95) = (of(|point| point.p50_ns), of(|point| point.p95_ns));
    let most = points.iter().map(|point| point.p95_ns).max().unwrap_or(0);
    let told = format!("p95 of the duration, at most {}", figures::duration(most));
    let top = (most as f64).max(1.0);
    html! {
        svg.spark viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(told) {
            path.p50 d=(line(&p50, top)) {}
            path.line d=(line(&p95, top)) {}
        }
    }
}

fn x(place: usize, points: usize) -> f64 {
    place as f64 * WIDTH / (points.max(2) - 1) as f64
}

fn y(value: f64, top: f64) -> f64 {
    HEIGHT - EDGE - value / top * (HEIGHT - 2.0 * EDGE)
}

/// A line with a gap where there is no value; a lone value is a dot.
fn line(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let mut is_open = false;
    for (place, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_open = false;
            continue;
        };
        let (x, y) = (x(place, values.len()), y(*value, top));
        let is_alone = !is_open && values.get(place + 1).is_none_or(Option::is_none);
        // writing into a String cannot fail
        if is_alone {
            write!(path, "M{:.1} {y:.1}h2", x.clamp(1.0, WIDTH - 1.0) - 1.0).unwrap_or_default();
        } else {
            let letter = if is_open { 'L' } else { 'M' };
            write!(path, "{letter}{x:.1} {y:.1}").unwrap_or_default();
        }
        is_open = true;
    }
    path
}

fn area(values: &[Option<f64>], top: f64) -> String {
    format!("{}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z", line(values, top))
}

/// A bar for each value that is not 0, at least a unit high.
fn bars(values: &[f64], top: f64) -> String {
    let width = WIDTH / values.len().max(1) as f64;
    let mut path = String::new();
    for (place, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
        let left = (x(place, values.len()) - width / 2.0).clamp(0.0, WIDTH - width);
        let height = (HEIGHT - y(*value, top)).max(2.0);
        write!(path, "M{left:.1} {HEIGHT}v-{height:.1}h{width:.1}v{height:.1}z").unwrap_or_default();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(count: u64, errors: u64, p95_ns: u64) -> Summary {
        Summary { count, errors, p50_ns: p95_ns / 2, p95_ns, p99_ns: p95_ns }
    }

    #[test]
    fn a_chart_says_what_it_draws() {
        let drawn = rate(&[point(0, 0, 0), point(30, 2, 5)], 15_000).into_string();
        assert!(drawn.contains("aria-label=\"requests, at most 2/s; 2 failed\""), "{drawn}");
        assert!(drawn.contains("class=\"errors\" d=\"M60.0 28v-3.2h60.0v3.2z"), "{drawn}");
        let quiet = rate(&[point(0, 0, 0), point(30, 0, 5)], 15_000).into_string();
        assert!(!quiet.contains("errors"), "{quiet}");
    }

    #[test]
    fn a_line_has_gaps_where_nothing_happened() {
        assert_eq!(line(&[Some(0.0), Some(1.0), None, Some(1.0)], 1.0), "M0.0 26.5L40.0 1.5M118.0 1.5h2");
        assert_eq!(line(&[None, None], 1.0), "");
    }
}
