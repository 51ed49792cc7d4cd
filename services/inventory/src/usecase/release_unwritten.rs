//! Finds orders whose units are in the ledger and that were never written, because the order service died in between or
//! their time was over, and gives their units back.
//!
//! Every order is asked about once, when it is older than an order may be when it is written: those that exist keep
//! their units, which from then on only their messages give back.

use super::{Error, ReleaseReservations};
use crate::{
    client::Orders,
    store::{self, reservations::Reservation},
};
use stampede_db::Database;
use stampede_vocab::{OrderId, Timestamp};
use std::{collections::HashSet, time::Duration};

/// Reservations that are asked about in one go.
const BATCH_SIZE: u32 = 1_024;

/// Gives back what was reserved for orders that were never written. Cheap to clone.
#[derive(Clone)]
pub struct ReleaseUnwritten {
    db: Database,
    orders: Orders,
    release: ReleaseReservations,
    age: Duration,
}

impl ReleaseUnwritten {
    /// Asks the order service about reservations of this age. It must be more than the time in which an order may be
    /// written.
    pub fn new(db: Database, orders: Orders, release: ReleaseReservations, age: Duration) -> Self {
        Self { db, orders, release, age }
    }

    /// Asks about every reservation that is old enough. Several replicas may: giving back twice changes nothing.
    pub async fn run(&self) -> anyhow::Result<()> {
        loop {
            let aged = self.aged().await?;
            let is_last = aged.len() < BATCH_SIZE as usize;
            if !aged.is_empty() {
                self.settle(aged).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn aged(&self) -> Result<Vec<Reservation>, Error> {
        let before = Timestamp::now().minus(self.age);
        let read = self.db.run("aged_reservations", |mut conn| async move {
            store::reservations::aged(&mut conn, before, BATCH_SIZE).await
        });
        Ok(read.await?)
    }

    async fn settle(&self, aged: Vec<Reservation>) -> anyhow::Result<()> {
        let asked: Vec<OrderId> = aged.iter().map(|(order_id, _)| *order_id).collect();
        let written: HashSet<OrderId> = self.orders.written(&asked).await?;
        let unwritten = aged.into_iter().filter(|(order_id, _)| !written.contains(order_id)).collect();
        let released = self.release.run(unwritten).await?;
        if released > 0 {
            tracing::info!(order.count = released, "the units of orders that were never written were given back");
        }
        let written: Vec<OrderId> = written.into_iter().collect();
        let confirmed = self.db.run("confirm_reservations", |mut conn| async move {
            store::reservations::delete(&mut conn, &written).await
        });
        confirmed.await?;
        Ok(())
    }
}
