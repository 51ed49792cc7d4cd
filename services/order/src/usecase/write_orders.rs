//! Writes new orders in batches: orders, lines and messages in one transaction.

use super::batch;
use crate::{
    domain::{Form, Order},
    store::{
        self,
        outbox::{self, Traced},
    },
};
use stampede_batch::{BatchError, Batcher};
use stampede_chassis::Deadline;
use stampede_db::{Database, DbError, Statements, WorkError};
use stampede_outbox::{Outbox, current_traceparent};
use stampede_vocab::OrderId;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Most tries of a batch, each without the orders that turned out to exist.
const ATTEMPTS: u32 = 4;

/// The outcome of a write.
#[derive(Debug, Clone)]
pub enum Written {
    /// It was written.
    New(Box<Order>),
    /// An order of this id exists.
    Existing(Box<Order>),
}

/// Why a write has no outcome.
#[derive(Debug, Clone)]
pub enum WriteError {
    /// It never left the queue: it was not written.
    NotTried(BatchError),
    /// Its write limit had passed: it was not written.
    TooLate,
    /// The database or the batch failed, perhaps during the commit.
    Failed(DbError),
}

#[derive(Clone)]
struct NewOrder {
    order: Order,
    write_by: Deadline,
    traceparent: Option<String>,
}

impl NewOrder {
    fn is_late(&self) -> bool {
        self.write_by.remaining().is_zero()
    }
}

/// Why a batch was rolled back.
#[derive(Debug, thiserror::Error)]
enum InsertError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the time of an order was over before the commit")]
    Late,
}

impl WorkError for InsertError {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::Late => None,
        }
    }
}

/// Writes orders. Cheap to clone.
#[derive(Clone)]
pub struct WriteOrders {
    queue: Batcher<NewOrder, Result<Written, WriteError>>,
    form: Form,
}

impl WriteOrders {
    /// Writes into this schema, in the form that the schema has for new orders. Fails if that cannot be read.
    pub async fn connect(db: Database, outbox: Outbox) -> Result<Self, DbError> {
        let form = db.run("order_form", |mut conn| async move { store::orders::new_form(&mut conn).await }).await?;
        let write = move |orders| write_all(db.clone(), outbox.clone(), orders);
        Ok(Self { queue: Batcher::new(batch("write_orders"), write), form })
    }

    /// Writes an order, or returns the existing one of its id. Never writes it after its write limit, since its units
    /// and coupon may then be freed.
    pub async fn write(&self, order: Order, write_by: Deadline) -> Result<Written, WriteError> {
        let order = Order { form: self.form, ..order };
        let new = NewOrder { order, write_by, traceparent: current_traceparent() };
        match self.queue.call(new).await {
            Ok(written) => written,
            Err(error @ (BatchError::Overloaded | BatchError::TooLate)) => Err(WriteError::NotTried(error)),
            Err(BatchError::Closed) => Err(WriteError::Failed(DbError::BrokenOff("write_orders"))),
        }
    }
}

async fn write_all(db: Database, outbox: Outbox, requested: Vec<NewOrder>) -> Vec<Result<Written, WriteError>> {
    // The first of each id, in id order, so that overlapping batches do not deadlock.
    let mut unique = BTreeMap::new();
    for new in &requested {
        unique.entry(new.order.id).or_insert_with(|| new.clone());
    }
    let mut outcomes = Outcomes::default();
    let mut parts = vec![unique];
    while let Some(mut part) = parts.pop() {
        let Err(error) = write_new(&db, &mut outcomes, &mut part).await else { continue };
        match part.keys().nth(part.len() / 2).copied() {
            // Bisect: only one half has the order at fault.
            Some(middle) if error.is_of_data() && part.len() > 1 => {
                let second = part.split_off(&middle);
                parts.extend([second, part]);
            }
            _ => outcomes.failed.extend(part.into_keys().map(|id| (id, error.clone()))),
        }
    }
    outbox.wake();
    requested.into_iter().map(|new| outcomes.outcome_of(new.order)).collect()
}

/// The outcomes of a batch so far.
#[derive(Default)]
struct Outcomes {
    existing: HashMap<OrderId, Result<Order, DbError>>,
    late: HashSet<OrderId>,
    failed: HashMap<OrderId, DbError>,
}

impl Outcomes {
    /// Returns the outcome of one call. The order is new unless its id exists, in the database or earlier in the batch,
    /// its write limit has passed, or the write failed.
    fn outcome_of(&mut self, order: Order) -> Result<Written, WriteError> {
        if let Some(existing) = self.existing.get(&order.id) {
            let existing = existing.clone().map_err(WriteError::Failed)?;
            return Ok(Written::Existing(Box::new(existing)));
        }
        if self.late.contains(&order.id) {
            return Err(WriteError::TooLate);
        }
        if let Some(error) = self.failed.get(&order.id) {
            return Err(WriteError::Failed(error.clone()));
        }
        self.existing.insert(order.id, Ok(order.clone()));
        Ok(Written::New(Box::new(order)))
    }

    /// Removes the orders whose write limit has passed.
    fn remove_late(&mut self, waiting: &mut BTreeMap<OrderId, NewOrder>) {
        let late = waiting.iter().filter(|(_, new)| new.is_late()).map(|(id, _)| *id);
        self.late.extend(late);
        waiting.retain(|id, _| !self.late.contains(id));
    }
}

/// Writes the orders that do not exist and are in time, and stores the outcome of the others in `outcomes`. If it
/// fails, `waiting` has the orders that were not written.
async fn write_new(
    db: &Database,
    outcomes: &mut Outcomes,
    waiting: &mut BTreeMap<OrderId, NewOrder>,
) -> Result<(), DbError> {
    for _ in 0..ATTEMPTS {
        outcomes.remove_late(waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        match insert(db, waiting.values().cloned().collect()).await {
            Ok(()) => return Ok(()),
            Err(InsertError::Late) => {}
            Err(InsertError::Db(error)) if error.unique_violation().is_some() => {
                let ids: Vec<OrderId> = waiting.keys().copied().collect();
                let found =
                    db.run("find_orders", |mut conn| async move { store::orders::load(&mut conn, &ids).await }).await?;
                waiting.retain(|id, _| !found.contains_key(id));
                outcomes.existing.extend(found);
            }
            Err(InsertError::Db(error)) => return Err(error),
        }
    }
    Err(DbError::inconsistent("orders of the same ids kept appearing, or their time kept running out"))
}

/// Writes all or none. Checks the write limit last, so that no wait for a connection or a lock is between the check and
/// the commit.
async fn insert(db: &Database, orders: Vec<NewOrder>) -> Result<(), InsertError> {
    let rows: Vec<&Order> = orders.iter().map(|new| &new.order).collect();
    let messages = orders
        .iter()
        .map(|new| Traced { outgoing: new.order.placed(), traceparent: new.traceparent.clone() })
        .collect();
    let mut opening = Statements::new();
    store::orders::push_insert(&mut opening, &rows);
    outbox::push_append(&mut opening, messages);
    let orders = Arc::new(orders);
    // All statements go out with the BEGIN.
    db.transact_after("place_orders", opening, move |_, _| {
        let orders = orders.clone();
        Box::pin(async move { if orders.iter().any(NewOrder::is_late) { Err(InsertError::Late) } else { Ok(()) } })
    })
    .await
}
