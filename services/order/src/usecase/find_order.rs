//! Reads single orders. What is asked for at the same time is read by one query.

use super::{Failure, batch};
use crate::{
    domain::{CommandRefusal, Order, OrderStatus},
    store,
};
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, UserId};
use std::sync::Arc;

type Found = Result<Option<Box<Order>>, Arc<DbError>>;

/// Reads orders by their ids. Cheap to clone.
#[derive(Clone)]
pub struct FindOrder {
    db: Database,
    queue: Batcher<OrderId, Found>,
}

impl FindOrder {
    /// Reads orders of this schema.
    pub fn new(db: Database) -> Self {
        let reading = db.clone();
        let queue = Batcher::new(batch("find_orders"), move |ids| find_all(reading.clone(), ids));
        Self { db, queue }
    }

    /// The order, if it was ever written.
    pub async fn find(&self, id: OrderId) -> Result<Option<Order>, Failure> {
        let found = self.queue.call(id).await?.map_err(Failure::Storage)?;
        Ok(found.map(|order| *order))
    }

    /// The order, if the caller may see it: `owner` is `None` for one who may see everybody's.
    pub async fn visible(&self, id: OrderId, owner: Option<UserId>) -> Result<Order, Failure> {
        let found = self.find(id).await?;
        let visible = found.filter(|order| owner.is_none_or(|owner| owner == order.buyer));
        visible.ok_or_else(|| CommandRefusal::NotFound.into())
    }

    /// Where those of these orders are that were ever written.
    pub async fn statuses(&self, ids: &[OrderId]) -> Result<Vec<OrderStatus>, Failure> {
        let mut connection = self.db.acquire().await?;
        Ok(store::lists::statuses(&mut connection, ids).await?)
    }
}

async fn find_all(db: Database, ids: Vec<OrderId>) -> Vec<Found> {
    match db.in_time("find_orders", read(&db, &ids)).await {
        Ok(found) => found.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(Arc::new(error)); ids.len()],
    }
}

async fn read(db: &Database, ids: &[OrderId]) -> Result<Vec<Option<Box<Order>>>, DbError> {
    let mut connection = db.acquire().await?;
    let found = store::orders::load(&mut connection, ids).await?;
    Ok(ids.iter().map(|id| found.get(id).cloned().map(Box::new)).collect())
}
