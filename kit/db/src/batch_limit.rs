//! Shrinks the batches of a server, or of a link, that is too slow for them.

use crate::{Bisection, DbError};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Longest time in which a batch in parts begins another part: its callers wait for all of it.
const LONGEST_BATCH: Duration = Duration::from_secs(10);

/// How much one transaction may write, or one read may ask for: less after time-outs, until the server is faster again.
/// Without it a batch that takes longer than the time-out would be tried for ever.
#[derive(Debug)]
pub struct BatchLimit {
    now: AtomicUsize,
    most: usize,
    /// How many good passes in a row double the limit; `None` if it grows by a quarter after each.
    doubled_after: Option<usize>,
    /// Good passes since the limit last changed.
    good_passes: AtomicUsize,
}

impl BatchLimit {
    /// Returns a limit that begins with `most`, at least 1, and is never more. It grows by a quarter after each batch
    /// of its size that was in time.
    pub const fn up_to(most: usize) -> Self {
        Self { now: AtomicUsize::new(most), most, doubled_after: None, good_passes: AtomicUsize::new(0) }
    }

    /// Returns the same limit, but doubled only after so many good passes in a row: batches that were in time. For work
    /// in which a batch that is too large costs what the ones before it have reached: with some good ones before each
    /// attempt it makes progress, however slow the server is.
    #[must_use]
    pub fn doubled_after(self, good_passes: usize) -> Self {
        Self { doubled_after: Some(good_passes), ..self }
    }

    /// Returns the limit of the next batch, at least 1.
    pub fn get(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// Notes that a batch of this size ended in time. One that is smaller than the limit shows nothing of a larger one.
    /// The limit grows slowly, so that a slow server does not time out at every other batch.
    pub fn succeeded(&self, tried: usize) {
        let now = self.get();
        if tried < now {
            return;
        }
        let passes = self.good_passes.fetch_add(1, Ordering::Relaxed) + 1;
        match self.doubled_after {
            None => self.set(now + now / 4 + 1),
            Some(enough) if passes >= enough => self.set(now * 2),
            Some(_) => {}
        }
    }

    /// Notes that a batch of this size failed: after a time-out the next one is half of it. Any other error is no
    /// matter of size.
    pub fn failed(&self, tried: usize, error: &DbError) {
        if matches!(error, DbError::TimedOut { .. }) {
            self.too_large(tried);
        }
    }

    /// Notes that a batch of this size took too long, whatever ended it: the next one is half of it.
    pub fn too_large(&self, tried: usize) {
        self.set(tried / 2);
    }

    /// Writes a batch of so many calls by `write_part`, which writes some of them in one transaction and returns the
    /// result of each: all at once, or in parts within this limit. A part whose data the database refuses is bisected.
    /// If the data is not at fault, the part fails and all calls after it, which are not tried. So do those that are
    /// left after ten seconds.
    pub async fn write_all<W>(&self, calls: usize, write_part: impl Fn(Range<usize>) -> W) -> Vec<Result<(), DbError>>
    where
        W: Future<Output = Result<Vec<Result<(), DbError>>, DbError>>,
    {
        let (mut bisection, began) = (Bisection::of(calls), Instant::now());
        while let Some(part) = bisection.next_part_within(self.get()) {
            if began.elapsed() > LONGEST_BATCH {
                let error = DbError::TimedOut { name: "all parts of a batch", after: LONGEST_BATCH };
                bisection.part_failed(part.start..calls, &error);
                break;
            }
            match write_part(part.clone()).await {
                Ok(results) => {
                    self.succeeded(part.len());
                    bisection.part_written(results);
                }
                Err(error) if error.is_of_data() => {
                    bisection.part_failed(part, &error);
                }
                Err(error) => {
                    self.failed(part.len(), &error);
                    bisection.part_failed(part.start..calls, &error);
                    break;
                }
            }
        }
        bisection.results()
    }

    fn set(&self, limit: usize) {
        self.now.store(limit.min(self.most).max(1), Ordering::Relaxed);
        self.good_passes.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::ready, sync::Mutex};

    const TIMED_OUT: DbError = DbError::TimedOut { name: "sweep", after: Duration::from_secs(5) };

    /// Returns the limits of these batches, each written in time if it is at most `in_time`.
    fn limits(limit: &BatchLimit, in_time: usize, batches: usize) -> Vec<usize> {
        let next = |_| {
            let tried = limit.get();
            if tried <= in_time {
                limit.succeeded(tried);
            } else {
                limit.failed(tried, &TIMED_OUT);
            }
            tried
        };
        (0..batches).map(next).collect()
    }

    fn pass(limit: &BatchLimit, times: usize) {
        for _ in 0..times {
            limit.succeeded(limit.get());
        }
    }

    /// Writes so many calls to a database that is done in time with `in_time` of them, and refuses the data of the one
    /// at this place. Returns the sizes of the parts that were tried, and the places of the calls that were written.
    async fn write(limit: &BatchLimit, calls: usize, in_time: usize, refused: usize) -> (Vec<usize>, Vec<usize>) {
        let tried = Mutex::new(Vec::new());
        let write_part = |part: Range<usize>| {
            tried.lock().unwrap().push(part.len());
            ready(match part.len() {
                size if size > in_time => Err(TIMED_OUT),
                _ if part.contains(&refused) => Err(DbError::inconsistent("too long")),
                size => Ok(vec![Ok(()); size]),
            })
        };
        let results = limit.write_all(calls, write_part).await;
        assert_eq!(results.len(), calls, "each call has a result");
        let written = (0..calls).filter(|call| results[*call].is_ok()).collect();
        (tried.into_inner().unwrap(), written)
    }

    #[tokio::test]
    async fn a_batch_that_takes_too_long_fails_and_later_ones_are_written_in_smaller_parts() {
        let limit = BatchLimit::up_to(16);
        assert_eq!(write(&limit, 16, 5, 99).await, (vec![16], vec![]));
        assert_eq!(write(&limit, 16, 5, 99).await, (vec![8], vec![]));
        // What was written before a part that is too large stays.
        assert_eq!(write(&limit, 16, 5, 99).await, (vec![4, 6], (0..4).collect()));
        assert_eq!(write(&limit, 7, 5, 99).await, (vec![3, 4], (0..7).collect()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_part_begins_once_the_batch_has_taken_long() {
        let limit = BatchLimit::up_to(1);
        let slowly = |_: Range<usize>| async {
            tokio::time::sleep(LONGEST_BATCH * 2 / 3).await;
            Ok(vec![Ok(())])
        };
        let results = limit.write_all(4, slowly).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[tokio::test]
    async fn a_call_whose_data_is_refused_fails_alone_in_a_part_within_the_limit() {
        let limit = BatchLimit::up_to(4);
        let (tried, written) = write(&limit, 8, 4, 5).await;
        assert_eq!((tried, written), (vec![4, 4, 2, 1, 1, 2], vec![0, 1, 2, 3, 4, 6, 7]));
        assert_eq!(limit.get(), 4, "data is no matter of size");
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
    fn however_many_batches_are_smaller_than_the_limit_it_stays() {
        for limit in [BatchLimit::up_to(250), BatchLimit::up_to(250).doubled_after(4)] {
            limit.too_large(250);
            for _ in 0..8 {
                limit.succeeded(124);
            }
            assert_eq!(limit.get(), 125);
        }
    }

    #[test]
    fn only_a_time_out_is_a_matter_of_size() {
        let limit = BatchLimit::up_to(250);
        for error in [DbError::BrokenOff("sweep"), DbError::inconsistent("two rows"), DbError::newer("state X")] {
            limit.failed(250, &error);
            assert_eq!(limit.get(), 250, "{error}");
        }
    }

    #[test]
    fn one_that_is_doubled_shrinks_to_one_and_grows_back_to_the_most() {
        let limit = BatchLimit::up_to(1_000).doubled_after(4);
        let mut halved = vec![limit.get()];
        for _ in 0..11 {
            limit.too_large(limit.get());
            halved.push(limit.get());
        }
        assert_eq!(halved, [1_000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1]);
        for doubled in [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000] {
            pass(&limit, 4);
            assert_eq!(limit.get(), doubled);
        }
    }

    #[test]
    fn one_good_pass_does_not_bring_back_the_size_that_was_too_large() {
        let limit = BatchLimit::up_to(1_000).doubled_after(4);
        limit.too_large(1_000);
        for passes in 1..4 {
            pass(&limit, 1);
            assert_eq!(limit.get(), 500, "after {passes} good passes");
        }
        // The count begins anew after a failure.
        limit.too_large(500);
        pass(&limit, 1);
        assert_eq!(limit.get(), 250);
        pass(&limit, 3);
        assert_eq!(limit.get(), 500);
    }
}
