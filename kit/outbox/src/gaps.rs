//! Gaps: ids below the cursor without a row. Their transaction has not committed yet, or they were never used.

use std::{cmp::Reverse, collections::BTreeMap, ops::Bound, time::Duration};
use tokio::time::Instant;

/// A range of ids, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
}

/// A missing range, without its first id.
#[derive(Debug, Clone, Copy)]
struct Missing {
    last: u64,
    /// When it was first seen to be missing.
    since: Instant,
}

/// The missing ranges, which do not overlap. A range of a thousand ids costs as much as one id.
#[derive(Debug, Default)]
pub struct Gaps {
    ranges: BTreeMap<u64, Missing>,
    /// First id of the range that was checked last: the next check continues after it.
    checked: u64,
}

impl Gaps {
    /// Returns the lowest id that is missing.
    pub fn lowest(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    /// Adds the ids of this range that are not known to be missing.
    pub fn add(&mut self, gap: Gap, now: Instant) {
        let mut next = gap.first;
        for known in self.overlapping(gap) {
            if next < known.first {
                self.ranges.insert(next, Missing { last: known.first - 1, since: now });
            }
            next = next.max(known.last + 1);
        }
        if next <= gap.last {
            self.ranges.insert(next, Missing { last: gap.last, since: now });
        }
    }

    fn overlapping(&self, gap: Gap) -> Vec<Gap> {
        let before = self.ranges.range(..gap.first).next_back().filter(|(_, missing)| missing.last >= gap.first);
        let within = self.ranges.range(gap.first..=gap.last);
        before.into_iter().chain(within).map(|(&first, missing)| Gap { first, last: missing.last }).collect()
    }

    /// Removes an id whose row has been found. Returns whether it was missing.
    pub fn fill(&mut self, id: u64) -> bool {
        let Some((&first, &Missing { last, since })) = self.ranges.range(..=id).next_back() else { return false };
        if last < id {
            return false;
        }
        self.ranges.remove(&first);
        if first < id {
            self.ranges.insert(first, Missing { last: id - 1, since });
        }
        if id < last {
            self.ranges.insert(id + 1, Missing { last, since });
        }
        true
    }

    /// Returns how many ranges are missing.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Returns whether an id is missing.
    pub fn has(&self, id: u64) -> bool {
        self.ranges.range(..=id).next_back().is_some_and(|(_, missing)| id <= missing.last)
    }

    /// Returns up to `most` ranges, in order, that cover all missing ids from `from` to `up_to`. With more gaps than
    /// that they cover other ids too.
    pub fn cover(&self, from: u64, up_to: u64, most: usize) -> Vec<Gap> {
        let within = self.ranges.range(..=up_to).filter(|(_, missing)| missing.last >= from);
        let part = |(&first, missing): (&u64, &Missing)| Gap { first: first.max(from), last: missing.last.min(up_to) };
        joined(within.map(part).collect(), most)
    }

    /// Returns up to `count` ranges that end at or below `up_to` and have been missing for `age`. Goes on after those
    /// of the last call.
    pub fn take_due(&mut self, up_to: u64, count: usize, age: Duration, now: Instant) -> Vec<Gap> {
        let is_due = |missing: &Missing| missing.last <= up_to && now.saturating_duration_since(missing.since) >= age;
        let gaps = self.after(self.checked, count, is_due);
        self.checked = gaps.last().map_or(0, |gap| gap.first);
        gaps
    }

    fn after(&self, last: u64, count: usize, wanted: impl Fn(&Missing) -> bool) -> Vec<Gap> {
        let later = self.ranges.range((Bound::Excluded(last), Bound::Unbounded));
        let all = later.chain(self.ranges.range(..=last));
        let wanted = all.filter(|(_, missing)| wanted(missing)).take(count);
        wanted.map(|(&first, missing)| Gap { first, last: missing.last }).collect()
    }

    /// Removes ranges that will never be filled.
    pub fn give_up(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            if self.ranges.get(&gap.first).is_some_and(|missing| missing.last == gap.last) {
                self.ranges.remove(&gap.first);
            }
        }
    }
}

/// Merges neighbouring ranges, the closest ones first, until there are `most` or fewer.
pub fn joined(mut gaps: Vec<Gap>, most: usize) -> Vec<Gap> {
    let most = most.max(1);
    if gaps.len() <= most {
        return gaps;
    }
    gaps.sort_unstable_by_key(|gap| gap.first);
    let mut between: Vec<u64> = gaps.windows(2).map(|pair| pair[1].first - pair[0].last).collect();
    between.sort_unstable_by_key(|distance| Reverse(*distance));
    // Fewer than `most` neighbours are further apart.
    let near = between[most - 1];
    let mut covers: Vec<Gap> = Vec::with_capacity(most);
    for gap in gaps {
        match covers.last_mut() {
            Some(cover) if gap.first - cover.last <= near => cover.last = gap.last,
            _ => covers.push(gap),
        }
    }
    covers
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(5);

    fn all(gaps: &Gaps) -> Vec<(u64, u64)> {
        gaps.ranges.iter().map(|(first, missing)| (*first, missing.last)).collect()
    }

    fn gap(first: u64, last: u64) -> Gap {
        Gap { first, last }
    }

    #[test]
    fn a_range_shrinks_and_splits_as_its_ids_come() {
        let mut gaps = Gaps::default();
        gaps.add(gap(10, 14), Instant::now());
        assert!(!gaps.fill(9) && !gaps.fill(15));
        assert!(gaps.fill(12));
        assert!(!gaps.fill(12), "an id comes once");
        assert_eq!(all(&gaps), [(10, 11), (13, 14)]);
        assert!(gaps.fill(10) && gaps.fill(11));
        assert_eq!((all(&gaps), gaps.lowest()), (vec![(13, 14)], Some(13)));
    }

    #[test]
    fn what_is_known_to_be_missing_keeps_its_age() {
        let (mut gaps, then) = (Gaps::default(), Instant::now());
        gaps.add(gap(5, 6), then);
        gaps.add(gap(9, 9), then);
        gaps.add(gap(4, 12), then + AGE);
        assert_eq!(all(&gaps), [(4, 4), (5, 6), (7, 8), (9, 9), (10, 12)]);
        assert_eq!(gaps.take_due(100, 10, AGE, then + AGE), [gap(5, 6), gap(9, 9)]);
    }

    #[test]
    fn ranges_take_turns_and_none_is_named_twice_at_a_time() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        for first in [10, 20, 30] {
            gaps.add(gap(first, first), now);
        }
        assert_eq!(gaps.take_due(100, 2, Duration::ZERO, now), [gap(10, 10), gap(20, 20)]);
        assert_eq!(gaps.take_due(100, 2, Duration::ZERO, now), [gap(30, 30), gap(10, 10)]);
        assert_eq!(gaps.take_due(100, 9, Duration::ZERO, now).len(), 3);
        assert_eq!(gaps.take_due(25, 9, Duration::ZERO, now).len(), 2);
    }

    #[test]
    fn a_cover_has_every_gap_and_joins_what_is_near() {
        let mut gaps = Gaps::default();
        for (first, last) in [(2, 3), (5, 6), (8, 9), (100, 100), (103, 110)] {
            gaps.add(gap(first, last), Instant::now());
        }
        assert_eq!(gaps.cover(0, 200, 5).len(), 5);
        assert_eq!(gaps.cover(0, 200, 2), [gap(2, 9), gap(100, 110)]);
        assert_eq!(gaps.cover(0, 105, 2), [gap(2, 9), gap(100, 105)], "no further than that");
        assert_eq!(gaps.cover(0, 200, 1), [gap(2, 110)]);
        assert_eq!(gaps.cover(6, 200, 2), [gap(6, 9), gap(100, 110)], "nothing before that");
        assert_eq!(gaps.cover(104, 200, 2), [gap(104, 110)]);
        assert!(gaps.cover(0, 1, 5).is_empty() && gaps.cover(111, 200, 5).is_empty());
        assert!(gaps.has(2) && gaps.has(110) && !gaps.has(4) && !gaps.has(111) && !gaps.has(1));
        assert_eq!(joined(vec![gap(30, 30), gap(1, 1), gap(20, 20)], 2), [gap(1, 1), gap(20, 30)]);
    }

    #[test]
    fn the_gaps_of_a_server_that_counts_in_steps_are_one_range() {
        let mut gaps = Gaps::default();
        for row in 0..1_000 {
            gaps.add(gap(3 * row + 1, 3 * row + 2), Instant::now());
        }
        assert_eq!(gaps.cover(0, u64::MAX, 200), [gap(1, 2_999)]);
    }

    #[test]
    fn only_a_range_that_is_still_whole_is_given_up() {
        let mut gaps = Gaps::default();
        gaps.add(gap(1, 5), Instant::now());
        assert!(gaps.fill(3));
        gaps.give_up(&[gap(1, 5), gap(4, 5)]);
        assert_eq!(all(&gaps), [(1, 2)]);
    }
}
