//! Where each scan of a sweep begins. While an old snapshot is open, an index keeps the entries of orders that are not
//! due any more, and a scan from its start reads them all. So most scans begin where the last full one has ended.

use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// The full scans of one sweep.
#[derive(Debug)]
pub struct FullScans {
    interval: Duration,
    /// When the last one began, and up to which time it has seen all orders.
    last: Option<(Instant, Timestamp)>,
}

/// A scan that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    started: Instant,
    /// The time from which on it sees orders; `None` for a full scan.
    pub from: Option<Timestamp>,
}

impl FullScans {
    /// Returns the scans of a sweep of which the first is a full one, and then one in each interval.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// Begins a scan at this instant.
    pub fn begin(&self, started: Instant) -> Scan {
        let last = self.last.filter(|(at, _)| started.duration_since(*at) < self.interval);
        Scan { started, from: last.map(|(_, seen)| seen) }
    }

    /// Records that a scan has reached its end, and up to which time it has seen all orders. A partial one does not
    /// postpone the next full one.
    pub fn end(&mut self, scan: Scan, seen: Timestamp) {
        if scan.from.is_none() {
            self.last = Some((scan.started, seen));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn a_scan_begins_where_the_last_full_one_has_ended_until_its_interval_is_over() {
        let (mut scans, start, seen) = (FullScans::every(INTERVAL), Instant::now(), Timestamp::from_micros(7));
        let first = scans.begin(start);
        assert_eq!((first.from, scans.begin(start).from), (None, None), "the first has not ended");
        scans.end(first, seen);
        let partial = scans.begin(start + INTERVAL / 2);
        assert_eq!(partial.from, Some(seen));
        scans.end(partial, seen.plus(INTERVAL));
        assert_eq!(scans.begin(start + INTERVAL - Duration::from_millis(1)).from, Some(seen));
        assert_eq!(scans.begin(start + INTERVAL).from, None);
    }
}
