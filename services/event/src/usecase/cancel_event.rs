//! CancelEvent: the end of an event before its time.

use crate::{
    domain::{Event, Outgoing, Refusal, Schedule},
    usecase::{EventError, Events, lock_one, store_change},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{EventId, Timestamp};

impl Events {
    /// Cancels the event. A repeat returns it as it is.
    pub async fn cancel(&self, id: EventId) -> Result<Event, EventError> {
        let clock = self.clock.clone();
        let work = self.db.transact("cancel_event", move |tx| {
            let clock = clock.clone();
            Box::pin(async move { end(tx, id, || clock.now()).await })
        });
        let schedule = work.await??;
        self.outbox.wake();
        self.disarm(&schedule).await;
        self.get(id).await
    }
}

async fn end(
    tx: &mut MySqlConnection,
    id: EventId,
    now: impl Fn() -> Timestamp,
) -> Result<Result<Schedule, Refusal>, DbError> {
    let before = match lock_one(tx, id).await? {
        Ok(before) => before,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let after = match before.cancel(now()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if after != before {
        let message = Outgoing::Cancelled { event_id: id, version: after.version, cancelled_at: after.updated_at };
        store_change(tx, &before, &after, message).await?;
    }
    Ok(Ok(after))
}
