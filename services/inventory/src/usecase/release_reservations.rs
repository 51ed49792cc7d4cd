//! Gives back the units of orders that were not and will not be written.

use super::{
    SyncRedis,
    ledger::{lock_ledger, push_changes, syncs},
    sync_redis::EventSync,
};
use crate::store::{self, reservations::Reservation};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, Statements};
use stampede_vocab::Timestamp;
use std::{collections::BTreeSet, sync::Arc};

/// Releases reservations. Cheap to clone.
#[derive(Clone)]
pub struct ReleaseReservations {
    db: Database,
    sync: SyncRedis,
}

impl ReleaseReservations {
    /// Returns the use case on this schema. It copies the changes to Redis after the commit.
    pub fn new(db: Database, sync: SyncRedis) -> Self {
        Self { db, sync }
    }

    /// Deletes these reservations, and gives back the units of orders that have no other one and are not known to be
    /// written. Returns how many orders gave units back.
    pub async fn run(&self, reservations: Vec<Reservation>) -> Result<u32, DbError> {
        if reservations.is_empty() {
            return Ok(0);
        }
        let reservations = Arc::new(reservations);
        let work = self.db.transact("release_reservations", move |conn| {
            let reservations = reservations.clone();
            Box::pin(async move { release(conn, &reservations).await })
        });
        let (released, syncs) = work.await?;
        self.sync.run(syncs).await;
        Ok(released)
    }
}

/// A row in `reservations` is the right to give units back. It is deleted in the same transaction, so this happens
/// exactly once.
async fn release(conn: &mut MySqlConnection, reservations: &[Reservation]) -> Result<(u32, Vec<EventSync>), DbError> {
    let orders: BTreeSet<_> = reservations.iter().map(|(order_id, _)| *order_id).collect();
    let mut ledger = lock_ledger(conn, orders, BTreeSet::new()).await?;
    let mut writes = Statements::new();
    let taken = store::reservations::take(conn, &mut writes, reservations).await?;
    let now = Timestamp::now();
    let released = taken.into_iter().map(|order_id| u32::from(ledger.void(order_id, now))).sum();
    let changes = ledger.changes();
    push_changes(&mut writes, &changes);
    writes.run(conn).await?;
    Ok((released, syncs(&changes, [], now)))
}
