//! The due sweep: sleeps until the next transition is due and makes it. It is what guarantees that events open and
//! close.

use super::in_time;
use crate::{
    domain::Due,
    usecase::{AdvanceEvents, ScheduleChanges},
};
use stampede_vocab::{EventId, Timestamp, backoff};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The worker.
pub struct DueSweep {
    /// Opens and closes what is due.
    pub advance: AdvanceEvents,
    /// Wakes it when this replica has changed times.
    pub changes: ScheduleChanges,
    /// Longest sleep, for events whose times another replica has changed.
    pub interval: Duration,
}

impl DueSweep {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match self.round(&stop).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    tracing::warn!(error.cause = %error, sweep.failures = failures, "due events not advanced, trying again");
                    let _ = tokio::time::timeout(backoff(failures), stop.cancelled()).await;
                    failures += 1;
                }
            }
        }
        Ok(())
    }

    /// Reads the next transitions, sleeps until the first is due, and makes those that are due.
    async fn round(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let upcoming = in_time(self.advance.upcoming()).await?;
        let pause = until(upcoming.first(), self.advance.now(), self.interval);
        if !pause.is_zero() {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // The new time may be earlier than the one that this sleep ends at: read again.
                () = self.changes.times_changed() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
        let due = due(&upcoming, self.advance.now());
        // What was moved or cancelled during the sleep is in the list still. The transaction decides on the locked
        // rows, and finds it not due.
        if !due.is_empty() {
            in_time(self.advance.run(due)).await?;
        }
        Ok(())
    }
}

/// Returns how long to sleep. A sleep that ends early is harmless: nothing is due then, and the next round sleeps
/// again.
fn until(next: Option<&Due>, now: Timestamp, interval: Duration) -> Duration {
    next.map_or(interval, |next| next.due_at.since(now).min(interval))
}

/// Returns the events of `upcoming`, which is sorted by time, that are due.
fn due(upcoming: &[Due], now: Timestamp) -> Vec<EventId> {
    upcoming.iter().take_while(|next| next.due_at <= now).map(|next| next.event_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn due_in_us(us: i64) -> Due {
        let event_id = EventId::from_uuid(Uuid::from_u128(us.unsigned_abs().into()));
        Due { event_id, due_at: Timestamp::from_micros(NOW.micros() + us) }
    }

    #[test]
    fn the_sweep_sleeps_to_the_next_transition_but_not_past_its_interval() {
        let interval = Duration::from_millis(500);
        let table =
            [(-5, Duration::ZERO), (0, Duration::ZERO), (1_234, Duration::from_micros(1_234)), (900_000, interval)];
        for (us, expected) in table {
            assert_eq!(until(Some(&due_in_us(us)), NOW, interval), expected, "{us}");
        }
        assert_eq!(until(None, NOW, interval), interval);
    }

    #[test]
    fn due_is_what_is_not_ahead_to_the_microsecond() {
        let upcoming = [-7, 0, 1, 9].map(due_in_us);
        assert_eq!(due(&upcoming, NOW), [upcoming[0].event_id, upcoming[1].event_id]);
        assert_eq!(due(&upcoming[2..], NOW), []);
    }
}
