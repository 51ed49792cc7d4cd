//! The number of events that are due at one instant and not open yet over time, as polls of the database see it, or by
//! the time from which on each could be seen open.

use crate::chaos::sql::Session;
use serde::Serialize;
use stampede_vocab::Timestamp;
use std::{iter, thread, time::Duration};

/// Time from the first poll to the instant.
const BEFORE: Duration = Duration::from_millis(100);
/// Poll interval. Each poll reads every event that is due, whose rows change meanwhile: polls without a pause would
/// slow down what they measure.
const TICK: Duration = Duration::from_millis(25);

/// One poll.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Look {
    /// Milliseconds since the instant, after the answer; negative before it.
    pub late_ms: f64,
    /// Events that were due and not open.
    pub left: u64,
}

/// All polls around one instant.
#[derive(Debug, Clone, Serialize)]
pub struct Curve {
    /// Events that were due.
    pub total: u64,
    /// In their order.
    pub looks: Vec<Look>,
}

impl Curve {
    /// Polls from shortly before `due_at` on by a statement that counts the events left, until none is or `within` is
    /// over.
    pub fn watch(
        session: &mut Session,
        count: &str,
        total: u32,
        due_at: Timestamp,
        within: Duration,
    ) -> anyhow::Result<Self> {
        thread::sleep(due_at.minus(BEFORE).since(Timestamp::now()));
        let (total, end) = (u64::from(total), due_at.plus(within));
        let mut looks = Vec::new();
        loop {
            let left = session.number(count)?;
            let now = Timestamp::now();
            looks.push(Look { late_ms: late_ms(now, due_at), left });
            if left == 0 || now > end {
                return Ok(Self { total, looks });
            }
            thread::sleep(TICK);
        }
    }

    /// The curve of events that could be seen open from these times on.
    pub fn of(mut seen: Vec<Timestamp>, due_at: Timestamp) -> Self {
        seen.sort_unstable();
        let total = u64::try_from(seen.len()).unwrap_or(u64::MAX);
        let begin = Look { late_ms: 0.0, left: total };
        let looks = (1..).zip(seen).map(|(open, at)| Look { late_ms: late_ms(at, due_at), left: total - open });
        Self { total, looks: iter::once(begin).chain(looks).collect() }
    }

    /// Milliseconds after which this percentage was open; none if it was never reached.
    pub fn late_ms(&self, percent: u64) -> Option<f64> {
        let may_be_left = self.total * (100 - percent.min(100)) / 100;
        self.looks.iter().find(|look| look.left <= may_be_left).map(|look| look.late_ms.max(0.0))
    }

    /// Number of events that were open before the instant.
    pub fn early(&self) -> u64 {
        let before = self.looks.iter().filter(|look| look.late_ms < 0.0);
        before.map(|look| self.total.saturating_sub(look.left)).max().unwrap_or(0)
    }
}

/// Milliseconds from `due_at` to `now`, negative before it.
pub fn late_ms(now: Timestamp, due_at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some seconds at most")]
    let micros = (now.micros() - due_at.micros()) as f64;
    micros / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(looks: &[(f64, u64)]) -> Curve {
        let looks = looks.iter().map(|(late_ms, left)| Look { late_ms: *late_ms, left: *left }).collect();
        Curve { total: 200, looks }
    }

    #[test]
    fn a_share_is_open_when_no_more_than_the_rest_is_left() {
        let curve = curve(&[(-1.0, 200), (3.0, 120), (9.0, 100), (20.0, 2), (31.0, 0)]);
        assert_eq!([50, 99, 100].map(|percent| curve.late_ms(percent)), [Some(9.0), Some(20.0), Some(31.0)]);
        assert_eq!(curve.early(), 0);
    }

    #[test]
    fn each_event_counts_from_when_it_could_be_seen_open() {
        let due_at = Timestamp::from_micros(1_000_000);
        let seen = [7, 3, 3, 90].map(|ms| due_at.plus(Duration::from_millis(ms)));
        let curve = Curve::of(seen.to_vec(), due_at);
        assert_eq!([0, 50, 75, 100].map(|percent| curve.late_ms(percent)), [0.0, 3.0, 7.0, 90.0].map(Some));
        assert_eq!((curve.total, curve.early()), (4, 0));
    }

    #[test]
    fn missing_and_early_openings_are_seen() {
        let curve = curve(&[(-5.0, 199), (10.0, 1)]);
        assert_eq!((curve.late_ms(100), curve.early()), (None, 1));
    }
}
