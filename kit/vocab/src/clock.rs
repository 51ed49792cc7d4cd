//! The clock of this process: that of its machine, corrected to a shared clock.
//!
//! Clocks of machines differ. Decisions on which the replicas of a service must agree use one shared clock: that of
//! their Redis, or of their database. A process measures the offset of its own clock ([`Offset`]) and corrects it, so
//! [`Timestamp::now`] needs no call. A process has one shared clock, and so one correction.

use crate::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An error of the machine's clock, for tests.
static SHIFT_US: AtomicI64 = AtomicI64::new(0);
/// The correction that is added to the clock of the machine.
static CORRECTION_US: AtomicI64 = AtomicI64::new(0);

/// The offset of another clock from that of the machine, as an interval: the clock was read between the request and the
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    least_us: i64,
    most_us: i64,
}

impl Offset {
    /// Returns the offset by a request at `sent_at` by the machine's clock, an answer after `round_trip`, and the time
    /// `there` in it.
    pub fn new(sent_at: Timestamp, round_trip: Duration, there: Timestamp) -> Self {
        let since = |earlier: Timestamp| there.micros().saturating_sub(earlier.micros());
        Self { least_us: since(sent_at.plus(round_trip)), most_us: since(sent_at) }
    }

    /// Returns the round trip of the measurement.
    pub fn round_trip(self) -> Duration {
        Duration::from_micros(self.most_us.abs_diff(self.least_us))
    }

    /// Returns the middle of the interval, in microseconds, as if both ways took as long. Negative if the other clock
    /// is behind.
    pub fn micros(self) -> i64 {
        self.least_us.midpoint(self.most_us)
    }

    /// Returns the least difference of the clocks.
    pub fn at_least(self) -> Duration {
        Duration::from_micros(self.least_micros().unsigned_abs())
    }

    /// Returns the least offset, in microseconds: 0 if the clocks may agree, negative if the other one is behind.
    pub fn least_micros(self) -> i64 {
        // Ahead for certain, behind for certain, or neither.
        if self.least_us > 0 { self.least_us } else { self.most_us.min(0) }
    }

    /// Returns the narrower interval.
    #[must_use]
    pub fn narrower(self, other: Self) -> Self {
        if other.round_trip() < self.round_trip() { other } else { self }
    }

    fn contains(self, offset_us: i64) -> bool {
        (self.least_us..=self.most_us).contains(&offset_us)
    }

    /// Returns the correction after this measurement: the one before if it is within the interval. So clocks that agree
    /// are not adjusted, and an uncertain measurement changes little.
    fn correct(self, correction_us: i64) -> i64 {
        if self.contains(correction_us) { correction_us } else { self.micros() }
    }
}

/// Returns the uncorrected time of the machine. Only measurements use it; others call [`Timestamp::now`].
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn machine() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    shifted(Timestamp::from_micros(0).plus(since_epoch), SHIFT_US.load(Ordering::Relaxed))
}

/// Returns the corrected time.
pub(crate) fn shared() -> Timestamp {
    shifted(machine(), CORRECTION_US.load(Ordering::Relaxed))
}

/// Corrects the clock of this process by this measurement. Called by one worker.
pub fn correct(to: Offset) {
    CORRECTION_US.store(to.correct(CORRECTION_US.load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// Shifts the clock of the machine as this process sees it; for tests of wrong clocks.
pub fn put_wrong(by_ms: i64) {
    SHIFT_US.store(by_ms.saturating_mul(1_000), Ordering::Relaxed);
}

fn shifted(at: Timestamp, by_us: i64) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_add(by_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Returns the measurement of a clock that is `ahead_ms` ahead, read half way of `round_trip_ms`.
    fn measured(ahead_ms: i64, round_trip_ms: u32) -> Offset {
        let sent_at = Timestamp::from_micros(1_000_000_000);
        let read_at = sent_at.plus(MS * round_trip_ms / 2);
        Offset::new(sent_at, MS * round_trip_ms, shifted(read_at, ahead_ms * 1_000))
    }

    #[test]
    fn an_answer_tells_the_offset_to_half_of_its_round_trip() {
        for ahead_ms in [-2_000, -3, 0, 3, 2_000] {
            let offset = measured(ahead_ms, 4);
            assert_eq!((offset.micros(), offset.round_trip()), (ahead_ms * 1_000, 4 * MS), "{ahead_ms}");
            let at_least = u32::try_from(ahead_ms.abs()).unwrap().saturating_sub(2);
            assert_eq!(offset.at_least(), MS * at_least, "{ahead_ms}");
            let least_ms = i64::from(at_least) * ahead_ms.signum();
            assert_eq!(offset.least_micros(), least_ms * 1_000, "{ahead_ms}");
        }
        let (near, far) = (measured(7, 1), measured(9, 30));
        assert_eq!((near.narrower(far), far.narrower(near)), (near, near));
    }

    #[test]
    fn a_correction_stays_while_it_is_possible() {
        assert_eq!(measured(1, 4).correct(0), 0, "they may well agree");
        assert_eq!(measured(2_000, 4).correct(0), 2_000_000);
        assert_eq!(measured(-2_000, 4).correct(0), -2_000_000);
        assert_eq!(measured(1_999, 4).correct(2_000_000), 2_000_000);
        assert_eq!(measured(0, 900).correct(400_000), 400_000, "an answer that took long tells little");
        assert_eq!(measured(0, 4).correct(2_000_000), 0, "somebody has set the machine's clock right");
    }

    #[test]
    fn the_ends_of_time_are_no_overflow() {
        let offset = Offset::new(Timestamp::from_micros(-2), Duration::MAX, Timestamp::from_micros(i64::MAX));
        assert!(offset.contains(offset.micros()));
        assert_eq!(shifted(Timestamp::from_micros(i64::MAX), 1).micros(), i64::MAX);
    }
}
