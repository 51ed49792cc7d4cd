//! The start of each scan of a queue. A queue is an index by due time. While an old snapshot is open, the index keeps
//! the entries of finished rows, and a scan from its start reads them all. So most scans begin where the last full one
//! has ended.

use stampede_vocab::Timestamp;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Interval of full scans of a queue.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// How far a scan begins before the end of the last full one, for rows that were due then and not visible: not
/// committed, locked, or written by a clock that is behind. Rows that were due even earlier wait for the next full
/// scan.
const OVERLAP: Duration = Duration::from_secs(10);

/// When the last full scan began, and up to which due time it has emptied the queue. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueScans(Arc<Mutex<Option<(Instant, Timestamp)>>>);

#[derive(Debug)]
pub(super) struct Scan {
    started: Instant,
    is_full: bool,
    /// The due time that it starts from.
    pub(super) from: Timestamp,
}

impl QueueScans {
    pub(super) fn begin(&self) -> Scan {
        let last_full = self.lock().filter(|(at, _)| at.elapsed() < FULL_SCAN_INTERVAL);
        let from = last_full.map_or(Timestamp::from_micros(0), |(_, now)| now.minus(OVERLAP));
        Scan { started: Instant::now(), is_full: last_full.is_none(), from }
    }

    /// Records that a scan has left nothing that was due at `now`.
    pub(super) fn mark_drained(&self, scan: &Scan, now: Timestamp) {
        if scan.is_full {
            *self.lock() = Some((scan.started, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn a_look_begins_where_the_last_one_at_all_has_ended_and_there_is_one_every_few_seconds() {
        let (scans, beginning) = (QueueScans::default(), Timestamp::from_micros(0));
        let first = scans.begin();
        assert_eq!((first.from, scans.begin().from), (beginning, beginning), "the first has not ended");
        scans.mark_drained(&first, NOW);
        advance(FULL_SCAN_INTERVAL / 2).await;
        let next = scans.begin();
        assert_eq!(next.from, NOW.minus(OVERLAP));
        // A partial scan does not postpone the next full one.
        scans.mark_drained(&next, NOW.plus(OVERLAP));
        assert_eq!(scans.begin().from, NOW.minus(OVERLAP));
        advance(FULL_SCAN_INTERVAL / 2).await;
        assert_eq!(scans.begin().from, beginning);
    }
}
