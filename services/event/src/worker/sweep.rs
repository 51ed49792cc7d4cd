//! The due sweep: sleeps until the next transition is due and makes it. It guarantees that events open and close.

use crate::{
    domain::Due,
    usecase::{AdvanceEvents, ScheduleChanges},
};
use stampede_db::DbError;
use stampede_service::Worker;
use stampede_vocab::{EventId, Timestamp, backoff_within};
use std::{collections::BTreeSet, mem, time::Duration};

/// Limits of the back-off for events that another transaction had locked: a replica that makes the same transition has
/// them for a moment, a stalled one until the server ends its connection. Each retry walks all of them, so that many of
/// one instant would be slowed down by the replicas that are done.
const MIN_LOCKED_RETRY: Duration = Duration::from_millis(10);
const MAX_LOCKED_RETRY: Duration = Duration::from_millis(100);
/// The longest back-off for events that cannot be read: somebody has to mend them.
const MAX_UNREADABLE_RETRY: Duration = Duration::from_secs(2);
/// Limits of the back-off after a failure. The longest bounds how late transitions are once the database is back.
const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// The worker. Between two rounds it sleeps until a transition is due, or this replica has changed times.
pub struct DueSweep {
    advance: AdvanceEvents,
    changes: ScheduleChanges,
    interval: Duration,
    /// The next transitions, read before the sleep.
    upcoming: Vec<Due>,
    /// Rounds in a row after which an event was still due.
    locked_rounds: u32,
}

impl DueSweep {
    /// Returns the worker, woken by `changes`. Times that another replica has changed are read after `interval`.
    pub fn new(advance: AdvanceEvents, changes: ScheduleChanges, interval: Duration) -> Self {
        Self { advance, changes, interval, upcoming: Vec::new(), locked_rounds: 0 }
    }
}

impl Worker for DueSweep {
    type Error = DbError;

    /// Advances the events that are due, then reads the next transitions. An event that was moved or cancelled
    /// meanwhile is not due any more, which the transaction checks. One that was locked, or cannot be read, is still
    /// due. After a failure everything is read again.
    async fn round(&mut self) -> Result<Duration, DbError> {
        let due = due(&mem::take(&mut self.upcoming), self.advance.now());
        let unreadable = if due.is_empty() { BTreeSet::new() } else { self.advance.run(due.len()).await? };
        let tried = due.iter().chain(&unreadable).copied().collect();
        // Transitions due after the start of the next round are left to that round.
        let horizon = self.advance.now().plus(self.interval * 2);
        self.upcoming = self.advance.upcoming(horizon, &tried).await?;
        let (next, now) = (self.upcoming.first(), self.advance.now());
        if !is_still_due(next, &tried, now) {
            self.locked_rounds = 0;
            return Ok(sleep_time(next, now, self.interval));
        }
        let other = untried(&self.upcoming, &tried, now);
        let longest = longest_retry(&self.upcoming, &unreadable, now);
        let pause = locked_retry(self.locked_rounds, longest, sleep_time(other, now, self.interval));
        self.locked_rounds = self.locked_rounds.saturating_add(1);
        Ok(pause)
    }

    async fn woken(&mut self) {
        self.changes.times_changed().await;
    }

    fn pause_after_failure(&self, failures: u32) -> Duration {
        backoff_within(MIN_BACKOFF, MAX_BACKOFF, failures)
    }
}

/// Returns how long to sleep. A sleep that ends early is harmless: nothing is due then, and the next round sleeps
/// again.
fn sleep_time(next: Option<&Due>, now: Timestamp, interval: Duration) -> Duration {
    next.map_or(interval, |next| next.due_at.since(now).min(interval))
}

/// Returns how long to wait for events that stay due after so many rounds before, but not past the next transition.
fn locked_retry(rounds: u32, longest: Duration, until_next: Duration) -> Duration {
    backoff_within(MIN_LOCKED_RETRY, longest, rounds).min(until_next)
}

/// Returns the longest time to wait for what is due: a short one if anything may be locked, and can be read.
fn longest_retry(upcoming: &[Due], unreadable: &BTreeSet<EventId>, now: Timestamp) -> Duration {
    let is_unreadable = |event: &EventId| unreadable.contains(event);
    if due(upcoming, now).iter().all(is_unreadable) { MAX_UNREADABLE_RETRY } else { MAX_LOCKED_RETRY }
}

/// Returns whether the next transition is due, although its event was among those that were just tried.
fn is_still_due(next: Option<&Due>, tried: &BTreeSet<EventId>, now: Timestamp) -> bool {
    next.is_some_and(|next| next.due_at <= now && tried.contains(&next.event_id))
}

/// Returns the first transition of `upcoming` that is ahead, or has become due since these events were tried.
fn untried<'d>(upcoming: &'d [Due], tried: &BTreeSet<EventId>, now: Timestamp) -> Option<&'d Due> {
    upcoming.iter().find(|next| next.due_at > now || !tried.contains(&next.event_id))
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

    fn ids<const N: usize>(events: [Due; N]) -> BTreeSet<EventId> {
        events.into_iter().map(|due| due.event_id).collect()
    }

    #[test]
    fn the_sweep_sleeps_to_the_next_transition_but_not_past_its_interval() {
        let interval = Duration::from_millis(500);
        let table =
            [(-5, Duration::ZERO), (0, Duration::ZERO), (1_234, Duration::from_micros(1_234)), (900_000, interval)];
        for (us, expected) in table {
            assert_eq!(sleep_time(Some(&due_in_us(us)), NOW, interval), expected, "{us}");
        }
        assert_eq!(sleep_time(None, NOW, interval), interval);
    }

    #[test]
    fn what_was_locked_is_not_tried_again_without_a_pause() {
        let (late, ahead) = (due_in_us(-5), due_in_us(7));
        assert!(is_still_due(Some(&late), &ids([ahead, late]), NOW));
        assert!(!is_still_due(Some(&late), &ids([]), NOW), "it has become due since");
        assert!(!is_still_due(Some(&ahead), &ids([ahead]), NOW), "its next transition is ahead");
        assert!(!is_still_due(None, &ids([late]), NOW));
    }

    #[test]
    fn what_has_become_due_since_does_not_wait_for_what_was_tried() {
        let [locked, since, ahead] = [-7, -5, 7].map(due_in_us);
        let tried = ids([locked]);
        assert_eq!(untried(&[locked, since, ahead], &tried, NOW), Some(&since));
        assert_eq!(untried(&[locked, ahead], &tried, NOW), Some(&ahead));
        assert_eq!(untried(&[locked], &tried, NOW), None);
    }

    #[test]
    fn what_stays_locked_is_tried_less_often_but_keeps_no_other_waiting() {
        for (rounds, longest_ms) in [(0, 10), (1, 20), (3, 80), (9, 100)] {
            let longest = Duration::from_millis(longest_ms);
            let pause = locked_retry(rounds, MAX_LOCKED_RETRY, Duration::from_secs(1));
            assert!(pause >= longest / 2 && pause <= longest, "{rounds}: {pause:?}");
        }
        let until_next = Duration::from_millis(3);
        assert_eq!(locked_retry(9, MAX_LOCKED_RETRY, until_next), until_next);
    }

    #[test]
    fn what_cannot_be_read_is_tried_less_often_unless_something_else_is_due() {
        let [unreadable, locked, ahead] = [-7, -5, 7].map(due_in_us);
        let ids = ids([unreadable]);
        assert_eq!(longest_retry(&[unreadable, ahead], &ids, NOW), MAX_UNREADABLE_RETRY);
        assert_eq!(longest_retry(&[unreadable, locked, ahead], &ids, NOW), MAX_LOCKED_RETRY);
    }

    #[test]
    fn due_is_what_is_not_ahead_to_the_microsecond() {
        let upcoming = [-7, 0, 1, 9].map(due_in_us);
        assert_eq!(due(&upcoming, NOW), [upcoming[0].event_id, upcoming[1].event_id]);
        assert_eq!(due(&upcoming[2..], NOW), []);
    }
}
