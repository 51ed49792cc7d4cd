//! The times of a sale, on the monotonic clock and on the wall clock, which is read once, at the start.

use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// The times of one sale.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    start: Instant,
    start_at: Timestamp,
    pub open_time: Timestamp,
    pub close_time: Timestamp,
    /// When coupons can be claimed; the opening without a campaign.
    pub claims_open_at: Timestamp,
}

impl Timeline {
    /// Returns the times of a sale that opens `opens_in` from now.
    pub fn from_now(opens_in: Duration, lasts: Duration, claims_before: Duration) -> Self {
        let start_at = Timestamp::now();
        let open_time = start_at.plus(opens_in);
        Self {
            start: Instant::now(),
            start_at,
            open_time,
            close_time: open_time.plus(lasts),
            claims_open_at: open_time.minus(claims_before),
        }
    }

    /// Returns the monotonic time of a time after the start.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.start + at.since(self.start_at)
    }

    /// Returns the wall-clock time of an instant after the start.
    pub fn time(&self, instant: Instant) -> Timestamp {
        self.start_at.plus(instant.duration_since(self.start))
    }

    pub fn now(&self) -> Timestamp {
        self.time(Instant::now())
    }

    /// Returns the milliseconds from the opening to `instant`; negative before it.
    pub fn since_opening_ms(&self, instant: Instant) -> i64 {
        (self.time(instant).micros() - self.open_time.micros()) / 1_000
    }
}
