//! Stages an event by an RPC: for the event service, which waits until its change is stored here, or for repair. The
//! event's messages have the same effect.

use super::{Error, Reconcile};
use crate::{domain::Shelf, store};
use stampede_db::Database;
use stampede_lua::Redis;
use stampede_vocab::EventId;
use std::sync::Arc;

/// Stages events. Cheap to clone.
#[derive(Clone)]
pub struct StageStock {
    db: Database,
    redis: Redis,
    reconcile: Reconcile,
}

impl StageStock {
    /// Returns the use case on this schema. It refuses new events while `redis` has too little memory left.
    pub fn new(db: Database, redis: Redis, reconcile: Reconcile) -> Self {
        Self { db, redis, reconcile }
    }

    /// Stages the items of an event, in the database and in Redis. An older version than the stored one changes
    /// nothing.
    pub async fn run(&self, shelf: Shelf) -> Result<(), Error> {
        let event_id = shelf.event_id;
        self.check_room(event_id).await?;
        let shelves: Arc<[Shelf]> = [shelf].into();
        let work = self.db.transact("stage_stock", move |conn| {
            let shelves = shelves.clone();
            Box::pin(async move {
                store::stock::stage(conn, &shelves).await?;
                store::restages::insert(conn, &shelves, &[]).await
            })
        });
        work.await?;
        self.reconcile.run(event_id).await?;
        self.reconcile.restage(event_id).await
    }

    /// Refuses a new event while Redis has too little memory left. An event that was staged before is accepted whatever
    /// is left, and an unreachable Redis is no reason to refuse.
    async fn check_room(&self, event_id: EventId) -> Result<(), Error> {
        let error = match self.redis.require_room().await {
            Err(error) if !error.is_unreachable() => error,
            _ => return Ok(()),
        };
        let known = self
            .db
            .run("closings", |mut conn| async move { store::stock::closings(&mut conn, &[event_id]).await })
            .await?;
        if known.is_empty() { Err(error.into()) } else { Ok(()) }
    }
}
