//! Bisects a batch that fails for a reason in the data, until the call at fault is alone: only that one fails, and all
//! others are written.

use crate::DbError;
use std::ops::Range;

/// A batch that is written in parts: the parts that are still to be written, and the results of the calls so far.
///
/// It is first tried as a whole, or in parts within a limit. After each [`Bisection::next_part`] it is to be told once
/// what became of the part, by [`Bisection::part_written`] or [`Bisection::part_failed`].
#[derive(Debug)]
pub struct Bisection<T> {
    /// A stack: the next part is at the end.
    parts: Vec<Range<usize>>,
    /// Those of all calls before the next part.
    results: Vec<Result<T, DbError>>,
}

impl<T> Bisection<T> {
    /// Returns a batch of so many calls.
    pub fn of(calls: usize) -> Self {
        let parts = std::iter::once(0..calls).filter(|all| !all.is_empty()).collect();
        Self { parts, results: Vec::with_capacity(calls) }
    }

    /// Returns the next part to write, from the first call to the last; `None` when all are done. No part is empty.
    pub fn next_part(&mut self) -> Option<Range<usize>> {
        self.next_part_within(usize::MAX)
    }

    /// Like [`Bisection::next_part`], but returns only as many calls of the part as this. The others come next.
    pub fn next_part_within(&mut self, limit: usize) -> Option<Range<usize>> {
        let part = self.parts.pop()?;
        debug_assert_eq!(self.results.len(), part.start, "each call before the part has one result");
        let end = part.end.min(part.start.saturating_add(limit.max(1)));
        if end < part.end {
            self.parts.push(end..part.end);
        }
        Some(part.start..end)
    }

    /// Records that the part was written, with the result of each of its calls, in order. Some may have failed alone.
    pub fn part_written(&mut self, results: impl IntoIterator<Item = Result<T, DbError>>) {
        self.results.extend(results);
    }

    /// Records that the part failed, and returns whether it is written again in halves. If it is a single call, or the
    /// data is not at fault, all its calls fail.
    pub fn part_failed(&mut self, part: Range<usize>, error: &DbError) -> bool {
        let is_halved = error.is_of_data() && part.len() > 1;
        if is_halved {
            let middle = part.start + part.len() / 2;
            self.parts.extend([middle..part.end, part.start..middle]);
        } else {
            self.results.extend(part.map(|_| Err(error.clone())));
        }
        is_halved
    }

    /// Returns the results, one for each call, in order.
    pub fn results(self) -> Vec<Result<T, DbError>> {
        self.results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a batch of which the calls at these places are bad. Returns the parts that were tried, and for each call
    /// its place, or `None` if it has failed.
    fn write(calls: usize, bad: &[usize], error: &DbError) -> (Vec<(usize, usize)>, Vec<Option<usize>>) {
        let (mut bisection, mut tried) = (Bisection::of(calls), Vec::new());
        while let Some(part) = bisection.next_part() {
            tried.push((part.start, part.end));
            if bad.iter().any(|call| part.contains(call)) {
                bisection.part_failed(part, error);
            } else {
                bisection.part_written(part.map(Ok));
            }
        }
        (tried, bisection.results().into_iter().map(Result::ok).collect())
    }

    /// Returns the places of so many calls, without these.
    fn all_but(bad: &[usize], calls: usize) -> Vec<Option<usize>> {
        (0..calls).map(|call| (!bad.contains(&call)).then_some(call)).collect()
    }

    #[test]
    fn only_what_the_data_of_is_bad_fails() {
        let error = DbError::inconsistent("too long");
        assert_eq!(write(4, &[], &error), (vec![(0, 4)], all_but(&[], 4)));
        let tried = vec![(0, 5), (0, 2), (2, 5), (2, 3), (3, 5), (3, 4), (4, 5)];
        assert_eq!(write(5, &[3], &error), (tried, all_but(&[3], 5)));
        assert_eq!(write(1, &[0], &error), (vec![(0, 1)], vec![None]));
        assert_eq!(write(256, &[0, 17, 255], &error).1, all_but(&[0, 17, 255], 256));
    }

    #[test]
    fn a_database_that_does_not_answer_is_not_asked_again_for_each_half() {
        let error = DbError::BrokenOff("settle_attempts");
        assert_eq!(write(4, &[3], &error), (vec![(0, 4)], vec![None; 4]));
    }

    #[test]
    fn a_failure_tells_whether_the_halves_are_tried() {
        let (mut bisection, error) = (Bisection::<()>::of(2), DbError::newer("state X"));
        assert_eq!(bisection.next_part(), Some(0..2));
        assert!(bisection.part_failed(0..2, &error));
        assert_eq!(bisection.next_part(), Some(0..1));
        assert!(!bisection.part_failed(0..1, &error));
        assert_eq!(bisection.next_part(), Some(1..2));
        assert!(!bisection.part_failed(1..2, &DbError::BrokenOff("w")));
        assert_eq!(bisection.next_part(), None);
    }

    #[test]
    fn a_call_may_fail_alone_in_a_part_that_is_written() {
        let mut bisection = Bisection::of(2);
        assert_eq!(bisection.next_part(), Some(0..2));
        bisection.part_written([Err(DbError::inconsistent("a row")), Ok(7)]);
        assert_eq!(bisection.next_part(), None);
        let written: Vec<_> = bisection.results().into_iter().map(Result::ok).collect();
        assert_eq!(written, [None, Some(7)]);
    }

    #[test]
    fn a_part_is_within_the_limit_and_what_is_left_of_it_comes_next() {
        let mut bisection = Bisection::of(6);
        assert_eq!(bisection.next_part_within(3), Some(0..3));
        assert!(bisection.part_failed(0..3, &DbError::inconsistent("a row")));
        for (limit, part) in [(3, 0..1), (1, 1..2), (0, 2..3), (2, 3..5), (2, 5..6)] {
            assert_eq!(bisection.next_part_within(limit), Some(part.clone()));
            bisection.part_written(part.map(Ok));
        }
        assert_eq!(bisection.next_part_within(2), None);
        let written: Vec<_> = bisection.results().into_iter().map(Result::ok).collect();
        assert_eq!(written, all_but(&[], 6));
    }

    #[test]
    fn an_empty_batch_has_no_part() {
        assert_eq!(write(0, &[], &DbError::BrokenOff("w")), (vec![], vec![]));
    }
}
