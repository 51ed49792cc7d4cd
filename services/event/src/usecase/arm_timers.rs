//! The Redis timers of events. They only make transitions prompt, so no use case fails when they fail.

use crate::{
    domain::{Due, Schedule, State},
    store,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use stampede_db::{Database, DbError};
use stampede_lua::{
    Redis, RedisError,
    timer::{self, Timers},
};

/// Events of one page.
const BATCH_SIZE: u32 = 500;
/// Timers that are armed concurrently.
const MAX_IN_FLIGHT: usize = 32;

/// Why not every timer was armed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// The events could not be read.
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
    /// Arms the timers of the events of this schema in this Redis.
    pub fn new(db: Database, redis: Redis) -> Self {
        Self { db, redis }
    }

    /// Arms the timers of every event with a transition ahead. Returns the number of events.
    pub async fn arm_all(&self) -> Result<usize, ArmError> {
        let mut armed = 0;
        let mut after = None;
        loop {
            let page = self.unfinished(after).await?;
            let Some(last) = page.last() else { return Ok(armed) };
            // A cursor over due times: an event whose times move in the meantime is armed by its own change.
            after = last.due_at().map(|due_at| Due { event_id: last.event_id, due_at });
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
        let timers = Timers {
            event_id: schedule.event_id,
            version: schedule.version,
            open_time: (schedule.state == State::Scheduled).then(|| schedule.times.open_time()),
            close_time: Some(schedule.times.close_time()),
        };
        timer::arm(&self.redis, timers).await.map(drop)
    }

    async fn unfinished(&self, after: Option<Due>) -> Result<Vec<Schedule>, DbError> {
        self.db
            .run("unfinished_events", |mut conn| async move {
                store::events::unfinished(&mut conn, after, BATCH_SIZE).await
            })
            .await
    }
}
