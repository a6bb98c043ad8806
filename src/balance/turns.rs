//! Whose turn it is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Turns among the places of a ring. Where all weigh the same, strictly one after the other, by one atomic; where not,
/// by nginx's smooth weighted round robin: each turn everyone gains its weight, and the one with most goes next and pays
/// what all gained. With the weights 5, 1 and 1 that is a a b a c a a, never five of one in a row.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Where the next search starts; always under the ring's length, or 0.
    next: AtomicUsize,
    /// What each place gained and did not pay yet.
    credit: Mutex<Vec<i64>>,
}

impl Turns {
    /// Turns for `places`, of which `next` has it, with these credits.
    pub fn new(next: usize, credit: Vec<i64>) -> Self {
        Self { next: AtomicUsize::new(next), credit: Mutex::new(credit) }
    }

    pub fn next(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }

    /// The credits, one a place.
    pub fn credit(&self) -> Vec<i64> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first usable place from the one whose turn it is; the turn goes to the one after it.
    pub fn take(&self, len: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let index = first_from(next, len, &usable)?;
            let after = (index + 1) % len;
            match self.next.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(index),
                Err(now) => next = now,
            }
        }
    }

    /// The place that [`Turns::take`] would give.
    pub fn peek(&self, len: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        first_from(self.next.load(Ordering::Relaxed), len, usable)
    }

    /// The place whose turn it is by weight; `weight` is `None` for one that cannot be used.
    pub fn take_weighted(&self, len: usize, weight: impl Fn(usize) -> Option<i64>) -> Option<usize> {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        credit.resize(len, 0);
        let mut total = 0;
        for (index, credit) in credit.iter_mut().enumerate() {
            let gain = weight(index).unwrap_or(0);
            *credit += gain;
            total += gain;
        }
        let most = richest(&credit, |index| weight(index).map(|_| 0))?;
        credit[most] -= total;
        self.next.store((most + 1) % len, Ordering::Relaxed);
        Some(most)
    }

    /// The place that [`Turns::take_weighted`] would give.
    pub fn peek_weighted(&self, len: usize, weight: impl Fn(usize) -> Option<i64>) -> Option<usize> {
        let mut credit = self.credit();
        credit.resize(len, 0);
        richest(&credit, weight)
    }
}

/// The first with the most, of those that gain something.
fn richest(credit: &[i64], gain: impl Fn(usize) -> Option<i64>) -> Option<usize> {
    let after = credit.iter().enumerate().filter_map(|(index, credit)| Some((index, credit + gain(index)?)));
    after.reduce(|most, other| if other.1 > most.1 { other } else { most }).map(|(index, _)| index)
}

fn first_from(next: usize, len: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (0..len).map(|step| (next + step) % len).find(|&index| usable(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_spread_as_nginx_does() {
        let turns = Turns::default();
        let weights = [5, 1, 1];
        let weight = |index: usize| Some(weights[index]);
        let mut order = Vec::new();
        for _ in 0..14 {
            let next = turns.peek_weighted(3, weight);
            order.push(turns.take_weighted(3, weight).unwrap());
            assert_eq!(next, order.last().copied());
        }
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns.take_weighted(3, |_| None), None);
    }

    #[test]
    fn equal_weights_are_strictly_in_turn() {
        let turns = Turns::default();
        let order: Vec<_> = (0..6).filter_map(|_| turns.take_weighted(3, |_| Some(4))).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }
}
