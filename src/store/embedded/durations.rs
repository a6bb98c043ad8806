//! An HDR histogram of three significant digits, laid out as [`super::super::stats`] says, but small while it holds
//! little: an answer has tens of thousands of them, most with a handful of durations.
//!
//! ```text
//! slot     0 …  2047    the durations 0 … 2047 ns
//!       2048 …  3071    1024 slots of  2 ns each, from 2048 ns
//!       3072 …  4095    1024 slots of  4 ns each, from 4096 ns
//!        …              (the last of all is slot 56319)
//! ```

/// Slots of each power of two: the first of three significant digits is then exact to 1/1024.
const SLOTS: u64 = 1024;

/// So many durations lie as they are (64 kB) before they are counted in slots (104 kB for durations up to a minute).
const FEW: usize = 32_768;

/// Durations of one group or bucket.
#[derive(Debug)]
pub(super) enum Durations {
    /// Their slots, in no order.
    Few(Vec<u16>),
    /// How many each slot has.
    Many(Vec<u32>),
}

impl Default for Durations {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Durations {
    /// Counts one duration; returns the bytes that this took more.
    pub fn record(&mut self, ns: u64) -> usize {
        let before = self.bytes();
        match self {
            Self::Few(slots) if slots.len() < FEW => slots.push(slot_of(ns)),
            Self::Few(slots) => {
                let mut counts = Vec::new();
                slots.iter().for_each(|slot| add(&mut counts, *slot, 1));
                add(&mut counts, slot_of(ns), 1);
                *self = Self::Many(counts);
            }
            Self::Many(counts) => add(counts, slot_of(ns), 1),
        }
        self.bytes().saturating_sub(before)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Few(slots) => slots.capacity() * size_of::<u16>(),
            Self::Many(counts) => counts.capacity() * size_of::<u32>(),
        }
    }

    /// Adds the counts of these to `counts`, one for each slot.
    pub fn add_to(&self, counts: &mut Vec<u32>) {
        match self {
            Self::Few(slots) => slots.iter().for_each(|slot| add(counts, *slot, 1)),
            Self::Many(more) => {
                for (slot, count) in (0_u16..).zip(more).filter(|(_, count)| **count > 0) {
                    add(counts, slot, *count);
                }
            }
        }
    }

    /// The durations of these percentiles, which must rise.
    pub fn percentiles<const N: usize>(&self, percents: [u64; N]) -> [u64; N] {
        match self {
            Self::Few(slots) => {
                let mut sorted = slots.clone();
                sorted.sort_unstable();
                percentiles(sorted.into_iter().map(|slot| (slot, 1)), slots.len() as u64, percents)
            }
            Self::Many(counts) => percentiles_of(counts, percents),
        }
    }
}

/// The same of counts made with [`Durations::add_to`].
pub(super) fn percentiles_of<const N: usize>(counts: &[u32], percents: [u64; N]) -> [u64; N] {
    let all = counts.iter().map(|count| u64::from(*count)).sum();
    percentiles((0_u16..).zip(counts.iter().copied()), all, percents)
}

/// `slots` come in order; 0 for each where there are none.
fn percentiles<const N: usize>(slots: impl Iterator<Item = (u16, u32)>, all: u64, percents: [u64; N]) -> [u64; N] {
    let mut found = [0; N];
    let ranks = percents.map(|percent| ((all.saturating_mul(percent) + 50) / 100).max(1));
    let (mut passed, mut at) = (0, 0);
    for (slot, count) in slots {
        passed += u64::from(count);
        while at < N && passed >= ranks[at] {
            found[at] = highest_of(slot);
            at += 1;
        }
        if at == N {
            break;
        }
    }
    found
}

fn add(counts: &mut Vec<u32>, slot: u16, more: u32) {
    let at = usize::from(slot);
    if at >= counts.len() {
        counts.resize(at + 1, 0);
    }
    counts[at] = counts[at].saturating_add(more);
}

fn slot_of(ns: u64) -> u16 {
    // bits that do not count
    let shift = u64::from(u64::BITS - ns.leading_zeros()).saturating_sub(u64::from(SLOTS.ilog2()) + 1);
    u16::try_from(shift * SLOTS + (ns >> shift)).unwrap_or(u16::MAX)
}

/// The longest duration of a slot, as HDR histograms answer.
fn highest_of(slot: u16) -> u64 {
    let slot = u64::from(slot);
    let shift = (slot / SLOTS).saturating_sub(1);
    // the last slot of all ends where `u64` does
    (((u128::from(slot - shift * SLOTS) + 1) << shift) - 1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_three_digits() {
        let mut last = 0;
        for ns in (0..4096).chain((12..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + power / 3, power + (power - 1)]
        })) {
            let slot = slot_of(ns);
            assert!(slot >= last, "{ns}");
            last = slot;
            let highest = highest_of(slot);
            assert!(highest >= ns && (highest - ns) as f64 <= ns as f64 / 1000.0, "{ns} {highest}");
        }
        assert_eq!((slot_of(u64::MAX), highest_of(56_319)), (56_319, u64::MAX));
        assert_eq!((slot_of(2047), highest_of(2047), slot_of(2048), highest_of(2048)), (2047, 2047, 2048, 2049));
    }

    #[test]
    fn few_and_many_agree() {
        assert_eq!(Durations::default().percentiles([50, 95, 99]), [0, 0, 0]);
        let mut all = Durations::default();
        let mut sum = Vec::new();
        let mut bytes = 0;
        // more than there is room for one by one, in no order
        for at in 0..100_000_u64 {
            let ns = (at * 7_919 % 100_000 + 1) * 1000;
            bytes += all.record(ns);
            let mut alone = Durations::default();
            alone.record(ns);
            alone.add_to(&mut sum);
        }
        assert!(matches!(all, Durations::Many(_)));
        assert!((64_000..400_000).contains(&bytes), "{bytes}");
        for found in [all.percentiles([50, 95, 99]), percentiles_of(&sum, [50, 95, 99])] {
            for (found, expected) in found.into_iter().zip([50_000_000_u64, 95_000_000, 99_000_000]) {
                assert!(found.abs_diff(expected) <= expected / 1000, "{found} {expected}");
            }
        }
    }

    #[test]
    fn ranks_are_rounded() {
        let mut ten = Durations::default();
        for ns in [10, 9, 8, 7, 6, 5, 4, 3, 2, 1] {
            ten.record(ns);
        }
        assert_eq!(ten.percentiles([0, 50, 54, 55, 94, 95, 100]), [1, 5, 5, 6, 9, 10, 10]);
    }
}
