//! A batch whose rows may harm each other. What the database refuses for a reason in the data is written again in
//! halves, until the one that it is about is alone: all others are written, and only that one fails.

use stampede_db::DbError;
use std::ops::Range;

/// The parts of a batch that are still to be written, and the answers to its calls.
#[derive(Debug)]
pub(super) struct Halves {
    parts: Vec<Range<usize>>,
    answers: Vec<Result<(), DbError>>,
}

impl Halves {
    /// Returns a batch of so many calls, to be written as a whole first.
    pub(super) fn of(calls: usize) -> Self {
        Self { parts: std::iter::once(0..calls).collect(), answers: vec![Ok(()); calls] }
    }

    /// Returns the part to be written next; `None` when all are done.
    pub(super) fn take(&mut self) -> Option<Range<usize>> {
        self.parts.pop()
    }

    /// Notes that a part was not written. It is written again in halves, unless it is one call, or the failure is none
    /// of the data: then all its calls fail.
    pub(super) fn failed(&mut self, part: Range<usize>, error: &DbError) {
        if !error.is_of_data() || part.len() < 2 {
            self.answers[part].fill(Err(error.clone()));
            return;
        }
        let middle = part.start + part.len() / 2;
        self.parts.extend([middle..part.end, part.start..middle]);
    }

    /// Notes that one call has failed in a part that was written.
    pub(super) fn refused(&mut self, call: usize, error: DbError) {
        self.answers[call] = Err(error);
    }

    /// Returns the answers, one for each call.
    pub(super) fn answers(self) -> Vec<Result<(), DbError>> {
        self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a batch of which the calls at these places are bad, and returns the parts that were tried and the places
    /// that have failed.
    fn write(calls: usize, bad: &[usize], error: &DbError) -> (Vec<(usize, usize)>, Vec<usize>) {
        let (mut halves, mut tried) = (Halves::of(calls), Vec::new());
        while let Some(part) = halves.take() {
            tried.push((part.start, part.end));
            if bad.iter().any(|call| part.contains(call)) {
                halves.failed(part, error);
            }
        }
        let answers = halves.answers();
        assert_eq!(answers.len(), calls);
        (tried, (0..calls).filter(|call| answers[*call].is_err()).collect())
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
