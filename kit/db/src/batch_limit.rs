//! Shrinks the batches of a server that is too slow for them.

use crate::DbError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much one transaction may write: less after time-outs, until the server is faster again. Without it a batch that
/// takes longer than the time-out would be tried for ever.
#[derive(Debug)]
pub struct BatchLimit {
    now: AtomicUsize,
    most: usize,
}

impl BatchLimit {
    /// Returns a limit that begins with `most`, at least 1, and is never more.
    pub const fn up_to(most: usize) -> Self {
        Self { now: AtomicUsize::new(most), most }
    }

    /// Returns the limit of the next batch, at least 1.
    pub fn get(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// Notes that a batch was written. The limit grows slowly, so that a slow server does not time out at every other
    /// batch.
    pub fn succeeded(&self) {
        let now = self.get();
        self.now.store((now + now / 4 + 1).min(self.most), Ordering::Relaxed);
    }

    /// Notes that a batch of this size failed: after a time-out the next one is half of it. Any other error is no
    /// matter of size.
    pub fn failed(&self, tried: usize, error: &DbError) {
        if matches!(error, DbError::TimedOut { .. }) {
            self.now.store((tried / 2).max(1), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TIMED_OUT: DbError = DbError::TimedOut { name: "sweep", after: Duration::from_secs(5) };

    /// Returns the limits of these batches, each written in time if it is at most `in_time`.
    fn limits(limit: &BatchLimit, in_time: usize, batches: usize) -> Vec<usize> {
        let next = |_| {
            let tried = limit.get();
            if tried <= in_time {
                limit.succeeded();
            } else {
                limit.failed(tried, &TIMED_OUT);
            }
            tried
        };
        (0..batches).map(next).collect()
    }

    #[test]
    fn a_batch_that_takes_too_long_is_halved_until_it_does_not() {
        let limit = BatchLimit::up_to(250);
        assert_eq!(limits(&limit, 20, 6), [250, 125, 62, 31, 15, 19]);
        assert_eq!(limits(&limit, 0, 6), [24, 12, 6, 3, 1, 1], "one is always tried");
    }

    #[test]
    fn batches_grow_again_up_to_the_most() {
        let limit = BatchLimit::up_to(10);
        limit.failed(3, &TIMED_OUT);
        assert_eq!(limits(&limit, 10, 8), [1, 2, 3, 4, 6, 8, 10, 10]);
    }

    #[test]
    fn half_of_what_was_tried_is_next_though_more_was_allowed() {
        let limit = BatchLimit::up_to(250);
        limit.failed(8, &TIMED_OUT);
        assert_eq!(limit.get(), 4);
    }

    #[test]
    fn only_a_time_out_is_a_matter_of_size() {
        let limit = BatchLimit::up_to(250);
        for error in [DbError::BrokenOff("sweep"), DbError::inconsistent("two rows"), DbError::newer("state X")] {
            limit.failed(250, &error);
            assert_eq!(limit.get(), 250, "{error}");
        }
    }
}
