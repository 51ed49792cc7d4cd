//! Stages an event by hand: for tools and repair, since the event's messages do it by themselves.

use super::{Error, Reconcile};
use crate::{domain::Shelf, store};
use stampede_db::Database;
use std::sync::Arc;

/// Stages events. Cheap to clone.
#[derive(Clone)]
pub struct StageStock {
    db: Database,
    reconcile: Reconcile,
}

impl StageStock {
    /// Stages events in this schema and in Redis.
    pub fn new(db: Database, reconcile: Reconcile) -> Self {
        Self { db, reconcile }
    }

    /// Stages the items of an event, in the database and in Redis. An older version than the one at hand changes
    /// nothing.
    pub async fn run(&self, shelf: Shelf) -> Result<(), Error> {
        let event_id = shelf.event_id;
        let shelves: Arc<[Shelf]> = [shelf].into();
        let work = self.db.transact("stage_stock", move |conn| {
            let shelves = shelves.clone();
            Box::pin(async move { store::stock::stage(conn, &shelves).await })
        });
        work.await?;
        self.reconcile.run(event_id).await?;
        Ok(())
    }
}
