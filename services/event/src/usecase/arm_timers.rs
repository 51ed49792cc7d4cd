//! The Redis timers of events. They only make transitions prompt, so their failures fail no use case.
//!
//! Only upcoming transitions have timers, so that the cost for Redis and for a reconnect does not grow with all planned
//! events.

use super::readable;
use crate::{
    domain::{Due, Schedule, State},
    store::{self, events::StoredSchedule},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use stampede_db::{Database, DbError};
use stampede_lua::{
    Redis, RedisError,
    timer::{self, Timers},
};
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;
use uuid::Uuid;

/// Time before a transition at which its timer is armed.
const ARM_AHEAD: Duration = Duration::from_secs(120);
/// The version of an event that was never changed.
const FIRST_VERSION: i64 = 1;
/// Events of one page.
const BATCH_SIZE: u32 = 500;
/// Timers that are armed concurrently.
const MAX_IN_FLIGHT: usize = 32;

/// Why not every timer was armed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    #[error(transparent)]
    Db(#[from] DbError),
    /// A timer could not be set.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// Arms and disarms timers. Cheap to clone.
#[derive(Clone)]
pub struct ArmTimers {
    db: Database,
    redis: Redis,
}

impl ArmTimers {
    /// Returns the use case on this schema and this Redis.
    pub fn new(db: Database, redis: Redis) -> Self {
        Self { db, redis }
    }

    /// Arms the timers of every event with an upcoming transition, except those due before `from`, which were armed
    /// before. Returns the number of events and the time up to which they are armed, which is the next `from`.
    pub async fn arm_upcoming(&self, from: Option<Timestamp>) -> Result<(usize, Timestamp), ArmError> {
        let until = Timestamp::now().plus(ARM_AHEAD);
        let mut armed = 0;
        let mut after = from.map(|due_at| Due { event_id: EventId::from_uuid(Uuid::nil()), due_at });
        loop {
            let page = self.due_before(after, until).await?;
            let Some((last, _)) = page.last() else { return Ok((armed, until)) };
            // A cursor over due times. An event whose times are moved meanwhile is armed by that change.
            after = Some(*last);
            let page = page.into_iter().filter_map(|(due, schedule)| readable(due.event_id, schedule));
            let page: Vec<Schedule> = page.collect();
            let arming = stream::iter(&page).map(Ok::<_, RedisError>);
            arming.try_for_each_concurrent(MAX_IN_FLIGHT, |schedule| self.try_arm(schedule)).await?;
            armed += page.len();
        }
    }

    pub(super) async fn arm(&self, schedule: &Schedule) {
        if let Err(error) = self.try_arm(schedule).await {
            tracing::warn!(event.id = %schedule.event_id, error.cause = %error, "timers not armed, left to the sweep");
        }
    }

    pub(super) async fn disarm(&self, schedule: &Schedule) {
        if let Err(error) = timer::disarm(&self.redis, schedule.event_id).await {
            tracing::warn!(event.id = %schedule.event_id, error.cause = %error, "timers not disarmed, they will have no effect");
        }
    }

    async fn try_arm(&self, schedule: &Schedule) -> Result<(), RedisError> {
        let timers = upcoming_timers(schedule, Timestamp::now());
        let has_none = timers.open_time.is_none() && timers.close_time.is_none();
        // The timers of an earlier version have to be removed.
        if has_none && schedule.version == FIRST_VERSION {
            return Ok(());
        }
        timer::arm(&self.redis, timers).await.map(drop)
    }

    async fn due_before(&self, after: Option<Due>, until: Timestamp) -> Result<Vec<(Due, StoredSchedule)>, DbError> {
        self.db
            .run("near_events", |mut conn| async move {
                store::events::due_before(&mut conn, after, until, BATCH_SIZE).await
            })
            .await
    }
}

/// Returns the timers of the transitions that are upcoming at `now`.
///
/// A closing within [`ARM_AHEAD`] of the opening is armed with it: at the opening, [`ArmTimers::arm_upcoming`] is
/// already past its due time.
fn upcoming_timers(schedule: &Schedule, now: Timestamp) -> Timers {
    let until = now.plus(ARM_AHEAD);
    let opening = (schedule.state == State::Scheduled).then(|| schedule.times.open_time());
    let open_time = opening.filter(|time| *time < until);
    let until = if open_time.is_some() { until.plus(ARM_AHEAD) } else { until };
    Timers {
        event_id: schedule.event_id,
        version: schedule.version,
        open_time,
        close_time: Some(schedule.times.close_time()).filter(|time| *time < until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Times;

    fn timers(opens_in_s: u64, closes_in_s: u64) -> [bool; 2] {
        let now = Timestamp::from_micros(1_000_000_000);
        let at = |seconds| now.plus(Duration::from_secs(seconds));
        let times = Times::new(at(opens_in_s), at(closes_in_s)).unwrap();
        let timers = upcoming_timers(&Schedule::new(EventId::from_uuid(Uuid::nil()), times, now), now);
        [timers.open_time.is_some(), timers.close_time.is_some()]
    }

    #[test]
    fn only_what_is_near_has_a_timer() {
        assert_eq!(timers(1, 2), [true, true]);
        assert_eq!(timers(119, 239), [true, true], "nobody looks for it again");
        assert_eq!(timers(119, 240), [true, false]);
        assert_eq!(timers(120, 121), [false, false]);
    }
}
