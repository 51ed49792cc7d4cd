//! Finds orders whose units are in the ledger and that were never written, because the order service died in between or
//! their time was over, and gives their units back.
//!
//! Every order is asked about once, when it is older than an order may be when it is written: those that exist keep
//! their units, which from then on only their messages give back.
//!
//! What cannot be given back is passed over, and asked about again once all others were.

use super::{Error, ReleaseReservations};
use crate::{
    client::Orders,
    store::{self, reservations::Reservation},
};
use stampede_db::Database;
use stampede_vocab::{OrderId, Timestamp};
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Reservations that are asked about in one go.
const BATCH_SIZE: u32 = 1_024;

/// Gives back what was reserved for orders that were never written.
pub struct ReleaseUnwritten {
    db: Database,
    orders: Orders,
    release: ReleaseReservations,
    age: Duration,
    /// The last reservation that was asked about. A round that is cut off is followed by one that goes on behind it.
    reached: Mutex<Option<Reservation>>,
}

impl ReleaseUnwritten {
    /// Asks the order service about reservations of this age. It must be more than the time in which an order may be
    /// written.
    pub fn new(db: Database, orders: Orders, release: ReleaseReservations, age: Duration) -> Self {
        Self { db, orders, release, age, reached: Mutex::default() }
    }

    /// Asks about every reservation that is old enough, each once. Several replicas may: giving back twice changes
    /// nothing.
    pub async fn run(&self) -> anyhow::Result<()> {
        loop {
            let aged = self.aged(self.reached()).await?;
            let last = aged.last().copied();
            let is_last = aged.len() < BATCH_SIZE as usize;
            if !aged.is_empty() {
                self.settle(aged).await?;
            }
            if is_last {
                self.reach(None);
                return Ok(());
            }
            self.reach(last);
        }
    }

    fn reached(&self) -> Option<Reservation> {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, place: Option<Reservation>) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    async fn aged(&self, after: Option<Reservation>) -> Result<Vec<Reservation>, Error> {
        let before = Timestamp::now().minus(self.age);
        let read = self.db.run("aged_reservations", |mut conn| async move {
            store::reservations::aged(&mut conn, before, after, BATCH_SIZE).await
        });
        Ok(read.await?)
    }

    /// Confirms those that are written first: they keep their units whatever becomes of the others.
    async fn settle(&self, aged: Vec<Reservation>) -> anyhow::Result<()> {
        let asked: Vec<OrderId> = aged.iter().map(|(order_id, _)| *order_id).collect();
        let written: HashSet<OrderId> = self.orders.needing_units(&asked).await?;
        let (confirmed, unwritten): (Vec<Reservation>, Vec<Reservation>) =
            aged.into_iter().partition(|(order_id, _)| written.contains(order_id));
        let confirmed: Vec<OrderId> = confirmed.into_iter().map(|(order_id, _)| order_id).collect();
        let confirm = self.db.run("confirm_reservations", |mut conn| async move {
            store::reservations::delete(&mut conn, &confirmed).await
        });
        confirm.await?;
        let released = self.release_each(unwritten).await?;
        if released > 0 {
            tracing::info!(order.count = released, "the units of orders that were never written were given back");
        }
        Ok(())
    }

    /// Gives back all in one transaction; where that fails, each on its own, so that a row that can't be read, or only
    /// by a newer release, keeps nobody else's units.
    async fn release_each(&self, unwritten: Vec<Reservation>) -> anyhow::Result<u32> {
        match self.release.run(unwritten.clone()).await {
            Ok(released) => return Ok(released),
            Err(error) if !error.is_of_data() => return Err(error.into()),
            Err(_) => {}
        }
        let (mut released, mut refused) = (0, Vec::new());
        for reservation in unwritten {
            match self.release.run(vec![reservation]).await {
                Ok(count) => released += count,
                Err(error) if !error.is_of_data() => return Err(error.into()),
                Err(error) => refused.push((reservation.0, error)),
            }
        }
        // One line for all, since they are asked about again and again.
        if let Some((order_id, error)) = refused.first() {
            tracing::error!(
                order.id = %order_id, order.count = refused.len(), error.cause = %error,
                "the units of orders could not be given back"
            );
        }
        Ok(released)
    }
}
