//! Bisects a batch that fails for a reason in the data, until the call at fault is alone: only that one fails, and all
//! others are written.

use stampede_db::DbError;
use std::ops::Range;

/// The parts of a batch that are still to be written, and the results of its calls.
#[derive(Debug)]
pub(super) struct Bisection {
    parts: Vec<Range<usize>>,
    results: Vec<Result<(), DbError>>,
}

impl Bisection {
    /// Returns a batch of so many calls, which is first tried as a whole.
    pub(super) fn of(calls: usize) -> Self {
        Self { parts: std::iter::once(0..calls).collect(), results: vec![Ok(()); calls] }
    }

    /// Returns the next part to write; `None` when all are done.
    pub(super) fn next_part(&mut self) -> Option<Range<usize>> {
        self.parts.pop()
    }

    /// Records that a part failed. It is written again in halves. If it is a single call, or the data is not at fault,
    /// all its calls fail.
    pub(super) fn part_failed(&mut self, part: Range<usize>, error: &DbError) {
        if !error.is_of_data() || part.len() < 2 {
            self.results[part].fill(Err(error.clone()));
            return;
        }
        let middle = part.start + part.len() / 2;
        self.parts.extend([middle..part.end, part.start..middle]);
    }

    /// Records that one call has failed in a part that was written.
    pub(super) fn call_failed(&mut self, call: usize, error: DbError) {
        self.results[call] = Err(error);
    }

    /// Returns the results, one for each call.
    pub(super) fn results(self) -> Vec<Result<(), DbError>> {
        self.results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a batch of which the calls at these places are bad, and returns the parts that were tried and the places
    /// that have failed.
    fn write(calls: usize, bad: &[usize], error: &DbError) -> (Vec<(usize, usize)>, Vec<usize>) {
        let (mut bisection, mut tried) = (Bisection::of(calls), Vec::new());
        while let Some(part) = bisection.next_part() {
            tried.push((part.start, part.end));
            if bad.iter().any(|call| part.contains(call)) {
                bisection.part_failed(part, error);
            }
        }
        let results = bisection.results();
        assert_eq!(results.len(), calls);
        (tried, (0..calls).filter(|call| results[*call].is_err()).collect())
    }

    #[test]
    fn only_what_the_data_of_is_bad_fails() {
        let error = DbError::inconsistent("too long");
        assert_eq!(write(4, &[], &error), (vec![(0, 4)], vec![]));
        let tried = vec![(0, 5), (0, 2), (2, 5), (2, 3), (3, 5), (3, 4), (4, 5)];
        assert_eq!(write(5, &[3], &error), (tried, vec![3]));
        assert_eq!(write(1, &[0], &error), (vec![(0, 1)], vec![0]));
        assert_eq!(write(256, &[0, 17, 255], &error).1, [0, 17, 255]);
    }

    #[test]
    fn a_database_that_does_not_answer_is_not_asked_again_for_each_half() {
        let error = DbError::BrokenOff("settle_attempts");
        assert_eq!(write(4, &[3], &error), (vec![(0, 4)], vec![0, 1, 2, 3]));
    }
}
