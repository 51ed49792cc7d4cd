//! The due sweep: sleeps until the next transition is due and brings it about. It alone guarantees that events turn.

use crate::{domain::Due, usecase::Events, worker::in_time};
use stampede_chassis::backoff;
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`. At least once an `interval` it looks for events whose times another replica has changed.
pub async fn run(events: Events, interval: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let mut failures = 0;
    while !stop.is_cancelled() {
        match round(&events, interval, &stop).await {
            Ok(()) => failures = 0,
            Err(error) => {
                tracing::warn!(error.cause = %error, sweep.failures = failures, "due events not turned, trying again");
                let _ = tokio::time::timeout(backoff(failures), stop.cancelled()).await;
                failures += 1;
            }
        }
    }
    Ok(())
}

/// Reads what comes next, sleeps until it is due, turns it. What was moved or cancelled meanwhile is not due any more,
/// and the transaction finds it so.
async fn round(events: &Events, interval: Duration, stop: &CancellationToken) -> anyhow::Result<()> {
    let upcoming = in_time(events.upcoming()).await?;
    let pause = until(upcoming.first(), events.now(), interval);
    if !pause.is_zero() {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = events.times_changed() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
    let due = due(&upcoming, events.now());
    if !due.is_empty() {
        in_time(events.turn(due)).await?;
    }
    Ok(())
}

/// How long to sleep. A sleep that ends early by the clock is harmless: nothing is due then, and the rest is slept.
fn until(next: Option<&Due>, now: Timestamp, interval: Duration) -> Duration {
    next.map_or(interval, |next| next.due_at.since(now).min(interval))
}

/// Those of the upcoming, which are sorted by their time, that are due.
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
