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
use stampede_db::{Bisection, Database, DbError, Statements, WorkError};
use stampede_outbox::{Outbox, current_traceparent};
use stampede_vocab::OrderId;
use std::collections::{BTreeMap, HashMap, HashSet};

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

struct NewOrder {
    order: Order,
    write_by: Deadline,
    traceparent: Option<String>,
}

impl NewOrder {
    fn is_late(&self) -> bool {
        has_passed(self.write_by)
    }
}

fn has_passed(write_by: Deadline) -> bool {
    write_by.remaining().is_zero()
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
        unique.entry(new.order.id).or_insert(new);
    }
    let unique: Vec<&NewOrder> = unique.into_values().collect();
    let (mut outcomes, mut bisection) = (Outcomes::default(), Bisection::of(unique.len()));
    while let Some(part) = bisection.next_part() {
        match write_new(&db, &mut outcomes, &unique[part.clone()]).await {
            Ok(()) => bisection.part_written(part.map(|_| Ok(()))),
            Err(error) => {
                bisection.part_failed(part, &error);
            }
        }
    }
    let results = unique.iter().zip(bisection.results());
    outcomes.failed.extend(results.filter_map(|(new, result)| Some((new.order.id, result.err()?))));
    outbox.wake();
    requested.into_iter().map(|new| outcomes.outcome_of(new.order)).collect()
}

/// The outcomes of a batch so far.
#[derive(Default)]
struct Outcomes {
    existing: HashMap<OrderId, Result<Order, DbError>>,
    late: HashSet<OrderId>,
    /// The orders of the parts that failed. For one that `existing` or `late` has too, that one counts.
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

    /// Returns those of the orders that have no outcome yet, and stores which of them are late.
    fn waiting<'o>(&mut self, orders: &[&'o NewOrder]) -> Vec<&'o NewOrder> {
        let has_none = |id: &OrderId| !self.existing.contains_key(id) && !self.late.contains(id);
        let open = orders.iter().copied().filter(|new| has_none(&new.order.id));
        let (late, waiting): (Vec<&NewOrder>, Vec<&NewOrder>) = open.partition(|new| new.is_late());
        self.late.extend(late.iter().map(|new| new.order.id));
        waiting
    }
}

/// Writes the orders that do not exist and are in time, and stores the outcome of the others in `outcomes`.
async fn write_new(db: &Database, outcomes: &mut Outcomes, orders: &[&NewOrder]) -> Result<(), DbError> {
    for _ in 0..ATTEMPTS {
        let waiting = outcomes.waiting(orders);
        if waiting.is_empty() {
            return Ok(());
        }
        match insert(db, &waiting).await {
            Ok(()) => return Ok(()),
            Err(InsertError::Late) => {}
            Err(InsertError::Db(error)) if error.unique_violation().is_some() => {
                let ids: Vec<OrderId> = waiting.iter().map(|new| new.order.id).collect();
                let found =
                    db.run("find_orders", |mut conn| async move { store::orders::load(&mut conn, &ids).await }).await?;
                outcomes.existing.extend(found);
            }
            Err(InsertError::Db(error)) => return Err(error),
        }
    }
    Err(DbError::inconsistent("orders of the same ids kept appearing, or their time kept running out"))
}

/// Writes all or none. Checks the write limit last, so that no wait for a connection or a lock is between the check and
/// the commit.
async fn insert(db: &Database, orders: &[&NewOrder]) -> Result<(), InsertError> {
    let rows: Vec<&Order> = orders.iter().map(|new| &new.order).collect();
    let messages = orders
        .iter()
        .map(|new| Traced { outgoing: new.order.placed(), traceparent: new.traceparent.clone() })
        .collect();
    let mut opening = Statements::new();
    store::orders::push_insert(&mut opening, &rows);
    outbox::push_append(&mut opening, messages);
    let first_limit = orders.iter().map(|new| new.write_by).min();
    // All statements go out with the BEGIN.
    db.transact_after("place_orders", opening, move |_, _| {
        Box::pin(async move { if first_limit.is_some_and(has_passed) { Err(InsertError::Late) } else { Ok(()) } })
    })
    .await
}
