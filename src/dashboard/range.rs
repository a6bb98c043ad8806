//! The time that a page looks at.

use maud::{Markup, html};
use serde::Deserialize;

use crate::store::{Bucket, Summary};

/// How far back, up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum Range {
    /// A quarter of an hour.
    #[default]
    #[serde(rename = "15m")]
    Quarter,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "6h")]
    Hours,
    #[serde(rename = "24h")]
    Day,
}

const RANGES: [Range; 4] = [Range::Quarter, Range::Hour, Range::Hours, Range::Day];

/// Points of a chart.
pub(super) const POINTS: usize = 60;

impl Range {
    /// As `--since` takes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Hour => "1h",
            Self::Hours => "6h",
            Self::Day => "24h",
        }
    }

    /// As a person says it.
    pub fn told(self) -> &'static str {
        match self {
            Self::Quarter => "the last 15 minutes",
            Self::Hour => "the last hour",
            Self::Hours => "the last 6 hours",
            Self::Day => "the last 24 hours",
        }
    }

    fn minutes(self) -> i64 {
        match self {
            Self::Quarter => 15,
            Self::Hour => 60,
            Self::Hours => 360,
            Self::Day => 1_440,
        }
    }

    /// Milliseconds of a point: a 60th of the range.
    pub fn step_ms(self) -> i64 {
        self.minutes() * 1_000
    }

    /// Its length in seconds.
    pub fn seconds(self) -> f64 {
        self.minutes() as f64 * 60.0
    }

    /// From when until when: the point that is not over is the last one.
    pub fn at(self, now_ms: i64) -> (i64, i64) {
        let step = self.step_ms();
        let until = (now_ms.div_euclid(step) + 1) * step;
        (until - step * 60, until)
    }

    /// A place for each point from `since_ms` on; empty ones where nothing happened.
    pub fn points(self, buckets: &[Bucket], since_ms: i64) -> Vec<Summary> {
        let mut points = vec![Summary::default(); POINTS];
        for bucket in buckets {
            let place = usize::try_from((bucket.start_ms - since_ms).div_euclid(self.step_ms())).ok();
            if let Some(point) = place.and_then(|place| points.get_mut(place)) {
                *point = bucket.summary.clone();
            }
        }
        points
    }

    /// The choice among all, at a page's address; `rest` is what else stands in its query, empty or beginning with `&`.
    pub fn choice(self, address: &str, rest: &str) -> Markup {
        html! {
            div.segments role="group" aria-label="Time range" {
                @for range in RANGES {
                    a href={ (address) "?range=" (range.word()) (rest) } aria-current=[(range == self).then_some("true")] {
                        (range.word())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_sixty_points_that_begin_at_whole_steps() {
        for range in RANGES {
            let (since, until) = range.at(1_700_000_123_456);
            assert_eq!((until - since) / range.step_ms(), 60);
            assert_eq!((since % range.step_ms(), until > 1_700_000_123_456), (0, true));
            assert!(until - 1_700_000_123_456 <= range.step_ms());
        }
        let at = |start_ms| Bucket { start_ms, summary: Summary { count: 1, ..Summary::default() } };
        let points = Range::Quarter.points(&[at(15_000), at(900_000), at(-1)], 0);
        assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), 1);
        assert_eq!((points.len(), points[1].count), (60, 1));
    }
}
