//! The clock of this process: that of its machine, corrected to the clock that it shares with others.
//!
//! Clocks of machines differ. What the replicas of a service must agree on is decided by one clock that all of them can
//! ask: that of their Redis, or of their database. A process measures how far its own is off ([`Offset`]) and corrects
//! for it, so [`Timestamp::now`] asks nobody. One correction is enough for a process: it has one such clock.

use crate::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How far the clock of the machine is put wrong, for tests.
static SHIFT_US: AtomicI64 = AtomicI64::new(0);
/// What is added to the clock of the machine.
static CORRECTION_US: AtomicI64 = AtomicI64::new(0);

/// How far another clock is ahead of the machine's, as far as one answer tells: it was read after the question had left
/// and before the answer arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    least_us: i64,
    most_us: i64,
}

impl Offset {
    /// What an answer tells: asked at `asked_at` by the clock of the machine, back after `round_trip`, with the time
    /// `there`.
    pub fn new(asked_at: Timestamp, round_trip: Duration, there: Timestamp) -> Self {
        let since = |earlier: Timestamp| there.micros().saturating_sub(earlier.micros());
        Self { least_us: since(asked_at.plus(round_trip)), most_us: since(asked_at) }
    }

    /// The time that question and answer took.
    pub fn round_trip(self) -> Duration {
        Duration::from_micros(self.most_us.abs_diff(self.least_us))
    }

    /// The middle of what is possible, in microseconds: question and answer took as long as each other. Negative if the
    /// other clock is behind.
    pub fn micros(self) -> i64 {
        self.least_us.midpoint(self.most_us)
    }

    /// How far the clocks differ at least.
    pub fn at_least(self) -> Duration {
        Duration::from_micros(self.least_micros().unsigned_abs())
    }

    /// How far the other clock is ahead at least, in microseconds: 0 if the clocks may agree, negative if it is behind.
    pub fn least_micros(self) -> i64 {
        // Ahead for certain, behind for certain, or neither.
        if self.least_us > 0 { self.least_us } else { self.most_us.min(0) }
    }

    /// The one of the two that tells more.
    #[must_use]
    pub fn narrower(self, other: Self) -> Self {
        if other.round_trip() < self.round_trip() { other } else { self }
    }

    fn contains(self, offset_us: i64) -> bool {
        (self.least_us..=self.most_us).contains(&offset_us)
    }

    /// The correction after this, if it was `correction_us` before: one that is possible stays. So clocks that agree
    /// are left alone, and an answer that took long, which tells little, changes little.
    fn correct(self, correction_us: i64) -> i64 {
        if self.contains(correction_us) { correction_us } else { self.micros() }
    }
}

/// The time by the clock of the machine, as it is. Everybody but who measures it calls [`Timestamp::now`].
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn machine() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    shifted(Timestamp::from_micros(0).plus(since_epoch), SHIFT_US.load(Ordering::Relaxed))
}

/// The time by the clock that is shared.
pub(crate) fn shared() -> Timestamp {
    shifted(machine(), CORRECTION_US.load(Ordering::Relaxed))
}

/// Corrects the clock of this process to the one that was measured. One worker calls this.
pub fn correct(to: Offset) {
    CORRECTION_US.store(to.correct(CORRECTION_US.load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// Puts the clock of the machine wrong by so much, as this process sees it: for tests of what follows from that.
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

    /// What an answer tells that took `round_trip_ms` and came from a clock that is `ahead_ms` ahead, read half way.
    fn measured(ahead_ms: i64, round_trip_ms: u32) -> Offset {
        let asked_at = Timestamp::from_micros(1_000_000_000);
        let read_at = asked_at.plus(MS * round_trip_ms / 2);
        Offset::new(asked_at, MS * round_trip_ms, shifted(read_at, ahead_ms * 1_000))
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
