//! Reads single orders. Concurrent reads are batched into one query.

use super::{Error, batch};
use crate::{
    domain::{CommandRefusal, Order, OrderStatus},
    store,
};
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, UserId};

type Found = Result<Option<Box<Order>>, DbError>;

/// Reads orders by their ids. Cheap to clone.
#[derive(Clone)]
pub struct FindOrder {
    db: Database,
    queue: Batcher<OrderId, Found>,
}

impl FindOrder {
    pub fn new(db: Database) -> Self {
        let reading = db.clone();
        let queue = Batcher::new(batch("find_orders"), move |ids| find_all(reading.clone(), ids));
        Self { db, queue }
    }

    /// Returns the order; `None` if it was never written.
    pub async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        let found = self.queue.call(id).await??;
        Ok(found.map(|order| *order))
    }

    /// Returns the order, if the caller may see it: `owner` is `None` for a caller who may see every order.
    pub async fn get(&self, id: OrderId, owner: Option<UserId>) -> Result<Order, Error> {
        let found = self.find(id).await?;
        let visible = found.filter(|order| owner.is_none_or(|owner| owner == order.buyer));
        visible.ok_or_else(|| CommandRefusal::NotFound.into())
    }

    /// Returns the states of those of these orders that exist.
    pub async fn statuses(&self, ids: &[OrderId]) -> Result<Vec<OrderStatus>, Error> {
        let read =
            self.db.run("order_statuses", |mut conn| async move { store::lists::statuses(&mut conn, ids).await });
        Ok(read.await?)
    }
}

async fn find_all(db: Database, ids: Vec<OrderId>) -> Vec<Found> {
    let found = db.run("find_orders", |mut conn| {
        let ids = &ids;
        async move { store::orders::load(&mut conn, ids).await }
    });
    match found.await {
        // An unreadable order fails its own calls only.
        Ok(found) => ids.iter().map(|id| found.get(id).cloned().transpose().map(|order| order.map(Box::new))).collect(),
        Err(error) => vec![Err(error); ids.len()],
    }
}
