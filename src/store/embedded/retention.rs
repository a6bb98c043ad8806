//! What goes when events are too old or too many: which time is the first to keep, and which files that frees.

use std::collections::HashMap;
use std::path::Path;

use tantivy::index::SegmentId;
use tantivy::{Searcher, SegmentReader};

use super::schema::TIME_MS;

/// The share of the limit (one in so many) that becomes free when it is passed: so that not each look deletes a little.
const FREED: u64 = 10;

/// A segment as retention sees it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub id: SegmentId,
    /// Of its files, deleted events included.
    pub bytes: u64,
    /// The part of them that is of events which are not deleted.
    pub live_bytes: u64,
    /// The first and last time in it.
    pub times: (i64, i64),
}

/// All segments that a searcher reads, with the sizes of their files.
///
/// # Errors
/// What reading the folder or a column gave.
pub(super) fn parts(dir: &Path, searcher: &Searcher) -> tantivy::Result<Vec<Part>> {
    let sizes = sizes(dir)?;
    let part = |segment: &SegmentReader| -> tantivy::Result<Part> {
        let bytes = sizes.get(&segment.segment_id().uuid_string()).copied().unwrap_or_default();
        let (alive, all) = (u128::from(segment.num_docs()), u128::from(segment.max_doc().max(1)));
        let times = segment.fast_fields().column_opt::<i64>(TIME_MS)?;
        Ok(Part {
            id: segment.segment_id(),
            bytes,
            live_bytes: u64::try_from(u128::from(bytes) * alive / all).unwrap_or(bytes),
            times: times.map_or((i64::MIN, i64::MIN), |times| (times.min_value(), times.max_value())),
        })
    };
    searcher.segment_readers().iter().map(part).collect()
}

/// The bytes of each segment's files, by its id.
fn sizes(dir: &Path) -> std::io::Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let segment = name.split('.').next().unwrap_or_default();
        match entry.metadata() {
            Ok(metadata) => *found.entry(segment.to_owned()).or_default() += metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // collected just now
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The first time to keep, so that what is left takes at most nine tenths of `limit`; `None` where it takes no more than
/// `limit`. A segment's events are taken to be spread evenly over its time. The newest stay in any case.
pub(super) fn first_to_keep(parts: &[Part], limit: u64) -> Option<i64> {
    let live: u64 = parts.iter().map(|part| part.live_bytes).sum();
    if live <= limit {
        return None;
    }
    let low = limit - limit / FREED;
    let first = parts.iter().map(|part| part.times.0).min()?;
    let last = parts.iter().map(|part| part.times.1).max()?;
    let (mut keeps_too_much, mut enough) = (i128::from(first), i128::from(last));
    while enough - keeps_too_much > 1 {
        let middle = (keeps_too_much + enough) / 2;
        if kept(parts, middle) <= u128::from(low) {
            enough = middle;
        } else {
            keeps_too_much = middle;
        }
    }
    i64::try_from(enough).ok()
}

/// About the bytes of events that are not before `from`.
fn kept(parts: &[Part], from: i128) -> u128 {
    let of = |part: &Part| {
        let (first, last) = (i128::from(part.times.0), i128::from(part.times.1));
        let all = (last - first + 1).unsigned_abs();
        let stay = (last - from + 1).clamp(0, last - first + 1).unsigned_abs();
        u128::from(part.live_bytes) * stay / all
    };
    parts.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: u64, times: (i64, i64)) -> Part {
        Part { id: SegmentId::generate_random(), bytes, live_bytes: bytes, times }
    }

    #[test]
    fn the_oldest_go_until_a_tenth_is_free() {
        let parts = [part(500, (1000, 1999)), part(500, (0, 999)), part(0, (0, 5000))];
        assert_eq!(first_to_keep(&parts, 1000), None);
        assert_eq!(first_to_keep(&parts, 900), Some(379));
        assert_eq!(first_to_keep(&parts, 500), Some(1099));
        assert_eq!(first_to_keep(&parts, 100), Some(1819));
    }

    #[test]
    fn the_newest_stay() {
        assert_eq!(first_to_keep(&[part(500, (7, 7))], 10), Some(7));
        assert_eq!(first_to_keep(&[part(500, (7, 8))], 1), Some(8));
        assert!(first_to_keep(&[part(500, (i64::MIN, i64::MAX))], 1).is_some_and(|from| from > i64::MAX / 2));
        assert_eq!(first_to_keep(&[], 0), None);
    }

    #[test]
    fn what_is_deleted_already_counts_as_free() {
        let parts = [Part { live_bytes: 100, ..part(1000, (0, 999)) }];
        assert_eq!(first_to_keep(&parts, 100), None);
        assert_eq!(first_to_keep(&parts, 99), Some(91));
    }
}
