//! Writes new orders, those that queue together in one transaction: orders, lines and the news of each.

use super::batch;
use crate::{
    domain::Order,
    store::{
        self,
        outbox::{self, Traced},
    },
};
use stampede_batch::{BatchError, Batcher};
use stampede_db::{Database, DbError};
use stampede_outbox::{Outbox, current_traceparent};
use stampede_vocab::OrderId;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// How often a batch is tried without the orders that turned out to exist.
const ROUNDS: u32 = 4;

/// What became of an order that was to be written.
#[derive(Debug, Clone)]
pub enum Written {
    /// It is written.
    New(Box<Order>),
    /// An order of this id is written already; this is it.
    Existing(Box<Order>),
}

/// Why an order may not be written.
#[derive(Debug, Clone)]
pub enum WriteError {
    /// It is not written, for certain.
    NotWritten(Arc<DbError>),
    /// The queue was full: it is not written.
    NotTried(BatchError),
    /// The connection or the batch broke, perhaps during the commit: nobody knows.
    Unknown(Arc<DbError>),
}

#[derive(Clone)]
struct NewOrder {
    order: Order,
    traceparent: Option<String>,
}

/// Writes orders. Cheap to clone.
#[derive(Clone)]
pub struct WriteOrders {
    queue: Batcher<NewOrder, Result<Written, WriteError>>,
}

impl WriteOrders {
    /// Writes into this schema.
    pub fn new(db: Database, outbox: Outbox) -> Self {
        let write = move |orders| write_all(db.clone(), outbox.clone(), orders);
        Self { queue: Batcher::new(batch("write_orders"), write) }
    }

    /// Writes an order, or finds the one that has its id.
    pub async fn write(&self, order: Order) -> Result<Written, WriteError> {
        let new = NewOrder { order, traceparent: current_traceparent() };
        match self.queue.call(new).await {
            Ok(written) => written,
            Err(error @ BatchError::Overloaded) => Err(WriteError::NotTried(error)),
            Err(BatchError::Closed) => Err(WriteError::Unknown(Arc::new(DbError::BrokenOff("write_orders")))),
        }
    }
}

async fn write_all(db: Database, outbox: Outbox, asked: Vec<NewOrder>) -> Vec<Result<Written, WriteError>> {
    // The first of each id; in the sequence of the ids, so that two batches never wait for each other.
    let mut firsts = BTreeMap::new();
    for new in &asked {
        firsts.entry(new.order.id).or_insert_with(|| new.clone());
    }
    match write_new(&db, firsts).await {
        Ok(mut known) => {
            outbox.wake();
            asked.into_iter().map(|new| Ok(answer(&mut known, new.order))).collect()
        }
        Err(error) => vec![Err(error); asked.len()],
    }
}

/// An order is new unless one of its id is known, from the database or from earlier in the batch.
fn answer(known: &mut HashMap<OrderId, Order>, order: Order) -> Written {
    match known.get(&order.id) {
        Some(existing) => Written::Existing(Box::new(existing.clone())),
        None => {
            known.insert(order.id, order.clone());
            Written::New(Box::new(order))
        }
    }
}

/// Writes those that do not exist, and returns those that do.
async fn write_new(
    db: &Database,
    mut waiting: BTreeMap<OrderId, NewOrder>,
) -> Result<HashMap<OrderId, Order>, WriteError> {
    let mut existing = HashMap::new();
    for _ in 0..ROUNDS {
        if waiting.is_empty() {
            return Ok(existing);
        }
        match insert(db, waiting.values().cloned().collect()).await {
            Ok(()) => return Ok(existing),
            Err(error) if error.unique_violation().is_some() => {
                let ids: Vec<OrderId> = waiting.keys().copied().collect();
                let found = find(db, &ids).await.map_err(|error| WriteError::Unknown(Arc::new(error)))?;
                waiting.retain(|id, _| !found.contains_key(id));
                existing.extend(found);
            }
            Err(error) if error.check_violation() || error.is_deadlock() => {
                return Err(WriteError::NotWritten(Arc::new(error)));
            }
            Err(error) => return Err(WriteError::Unknown(Arc::new(error))),
        }
    }
    let error = DbError::inconsistent("orders of the same ids kept appearing");
    Err(WriteError::Unknown(Arc::new(error)))
}

async fn insert(db: &Database, orders: Vec<NewOrder>) -> Result<(), DbError> {
    let orders = Arc::new(orders);
    db.transact("place_orders", move |transaction| {
        let orders = orders.clone();
        Box::pin(async move {
            let rows: Vec<&Order> = orders.iter().map(|new| &new.order).collect();
            store::orders::insert(transaction, &rows).await?;
            let news = orders
                .iter()
                .map(|new| Traced { outgoing: new.order.placed(), traceparent: new.traceparent.clone() })
                .collect();
            outbox::append(transaction, news).await
        })
    })
    .await
}

async fn find(db: &Database, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, DbError> {
    let mut connection = db.acquire().await?;
    store::orders::load(&mut connection, ids).await
}
