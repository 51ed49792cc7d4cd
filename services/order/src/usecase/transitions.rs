//! The single path of all changes: locks a batch of orders, lets the domain decide, and writes the new states and the
//! messages in one transaction.

use super::end_event_orders::LONGEST_PAUSE_AFTER_CHANGE;
use crate::{
    domain::{Input, NoStep, Order, PaymentPolicy, State, Step},
    store::{
        cancellations,
        orders::{self, ChangedOrder, Lock, Locked},
        outbox::{self, Traced},
    },
};
use opentelemetry::{KeyValue, global, metrics::Counter};
use sqlx::MySqlConnection;
use stampede_db::{Bisection, Database, DbError, Statements};
use stampede_outbox::Outbox;
use stampede_vocab::{EventId, OrderId, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

/// An input for one order.
#[derive(Clone)]
pub struct Change {
    pub order: OrderId,
    pub input: Input,
    /// `traceparent` of the request or message that caused it.
    pub traceparent: Option<String>,
}

/// The outcome of one change.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The order changed; its value after this change.
    Moved(Box<Order>),
    /// The order did not change, and why.
    Stayed(Box<Order>, NoStep),
    /// The order was never written, or is locked if locked orders are skipped.
    Unknown,
    /// The rows of the order cannot be read by this version.
    Unreadable(DbError),
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Moved(_) => "moved",
            Self::Stayed(_, NoStep::AlreadyApplied) => "already_applied",
            Self::Stayed(_, NoStep::Ignored) => "ignored",
            Self::Stayed(_, NoStep::Refused(_)) => "refused",
            Self::Unknown => "unknown",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// A batch of changes that is written but not committed. To be passed to [`Transitions::committed`] after the commit.
#[derive(Debug)]
pub struct Advanced {
    outcomes: Vec<(&'static str, Outcome)>,
    has_messages: bool,
}

impl Advanced {
    /// Returns the index of the first change of an order that was never written.
    pub fn first_unknown(&self) -> Option<usize> {
        self.outcomes.iter().position(|(_, outcome)| matches!(outcome, Outcome::Unknown))
    }

    /// Returns the index of the first change of an order whose rows cannot be read, and why.
    pub fn first_unreadable(&self) -> Option<(usize, &DbError)> {
        self.outcomes.iter().enumerate().find_map(|(index, (_, outcome))| match outcome {
            Outcome::Unreadable(error) => Some((index, error)),
            _ => None,
        })
    }
}

/// Changes orders. Cheap to clone.
#[derive(Clone)]
pub struct Transitions {
    db: Database,
    outbox: Outbox,
    policy: PaymentPolicy,
    changes: Counter<u64>,
}

impl Transitions {
    /// Changes orders of this schema under this policy.
    pub fn new(db: Database, outbox: Outbox, policy: PaymentPolicy) -> Self {
        let changes = global::meter("stampede.order")
            .u64_counter("stampede_order_changes")
            .with_description("Inputs of orders, by what became of them")
            .build();
        Self { db, outbox, policy, changes }
    }

    /// Applies the changes in a transaction of this name. A batch that the database refuses for a reason in the data is
    /// bisected until the change at fault is alone, so that no other fails. Returns one result a change, in order.
    pub async fn run_each(&self, name: &'static str, changes: Vec<Change>) -> Vec<Result<Outcome, DbError>> {
        self.run_bisected(name, Lock::Wait, changes).await
    }

    /// Like [`Transitions::run_each`], but skips locked orders.
    pub async fn run_each_unlocked(&self, name: &'static str, changes: Vec<Change>) -> Vec<Result<Outcome, DbError>> {
        self.run_bisected(name, Lock::Skip, changes).await
    }

    async fn run_bisected(
        &self,
        name: &'static str,
        lock: Lock,
        changes: Vec<Change>,
    ) -> Vec<Result<Outcome, DbError>> {
        let changes: Arc<[Change]> = changes.into();
        let mut bisection = Bisection::of(changes.len());
        while let Some(part) = bisection.next_part() {
            match self.run_part(name, lock, &changes, part.clone()).await {
                Ok(outcomes) => bisection.part_written(outcomes.into_iter().map(Ok)),
                Err(error) => {
                    bisection.part_failed(part, &error);
                }
            }
        }
        bisection.results()
    }

    /// Applies the changes in one transaction of this name, without locked orders: for sweeps, which retry anyway.
    /// Returns one outcome a change, in order.
    pub async fn run_unlocked(&self, name: &'static str, changes: Vec<Change>) -> Result<Vec<Outcome>, DbError> {
        let changes: Arc<[Change]> = changes.into();
        self.run_part(name, Lock::Skip, &changes, 0..changes.len()).await
    }

    /// Applies a part of the changes in one transaction of this name.
    async fn run_part(
        &self,
        name: &'static str,
        lock: Lock,
        changes: &Arc<[Change]>,
        part: Range<usize>,
    ) -> Result<Vec<Outcome>, DbError> {
        let (this, changes) = (self.clone(), changes.clone());
        let mut opening = Statements::new();
        let place = orders::push_lock(&mut opening, &ids(&changes[part.clone()]), lock);
        let work = self.db.transact_after(name, opening, move |conn, read| {
            let (changes, part, this) = (changes.clone(), part.clone(), this.clone());
            Box::pin(async move {
                let locked = orders::locked(conn, &read, place).await?;
                this.apply(conn, locked, &changes[part]).await
            })
        });
        let advanced: Result<Advanced, DbError> = work.await;
        Ok(self.committed(advanced?))
    }

    /// Locks the orders of these changes inside the caller's transaction. To be called before its other writes: the row
    /// of a cancelled event is locked after the orders, and messages are written last.
    pub async fn lock(&self, conn: &mut MySqlConnection, changes: &[Change]) -> Result<Locked, DbError> {
        orders::lock(conn, &ids(changes), Lock::Wait).await
    }

    /// Applies the changes to their locked orders. All writes go out in one round trip: none needs the answer of
    /// another.
    pub async fn apply(
        &self,
        conn: &mut MySqlConnection,
        locked: Locked,
        changes: &[Change],
    ) -> Result<Advanced, DbError> {
        let mut set = WorkingSet::of(locked);
        set.cancelled = cancellations::known(conn, &set.events_of_late_payments(changes)).await?;
        let now = Timestamp::now();
        let outcomes: Vec<_> =
            changes.iter().map(|change| (change.input.name(), set.apply(change, now, &self.policy))).collect();
        let has_messages = !set.messages.is_empty();
        let mut writes = Statements::new();
        orders::push_update(&mut writes, &set.changed_orders());
        cancellations::push_lock(&mut writes, &set.reopened, &set.refunded);
        cancellations::push_reopen(&mut writes, &set.reopened, now);
        cancellations::push_changed(&mut writes, &set.refunded, now.plus(LONGEST_PAUSE_AFTER_CHANGE));
        outbox::push_append(&mut writes, set.messages);
        writes.run(conn).await?;
        Ok(Advanced { outcomes, has_messages })
    }

    /// Counts the outcomes of a committed batch, wakes the relay, and returns the outcomes.
    pub fn committed(&self, advanced: Advanced) -> Vec<Outcome> {
        if advanced.has_messages {
            self.outbox.wake();
        }
        advanced.outcomes.into_iter().map(|(input, outcome)| self.counted(input, outcome)).collect()
    }

    fn counted(&self, input: &'static str, outcome: Outcome) -> Outcome {
        if let Outcome::Stayed(order, NoStep::Ignored) = &outcome {
            let (id, state) = (order.id, order.state.name().as_str());
            tracing::debug!(order.id = %id, order.state = state, order.input = input, "means nothing here, ignored");
        }
        self.changes.add(1, &[KeyValue::new("input", input), KeyValue::new("outcome", outcome.name())]);
        outcome
    }
}

/// Returns the ids of the orders that change, sorted.
fn ids(changes: &[Change]) -> Vec<OrderId> {
    let ids: BTreeSet<OrderId> = changes.iter().map(|change| change.order).collect();
    ids.into_iter().collect()
}

/// Orders that are locked until the transaction ends, as they are after the changes so far.
#[derive(Default)]
struct WorkingSet {
    orders: BTreeMap<OrderId, Order>,
    unreadable: BTreeMap<OrderId, DbError>,
    /// Those events of expired orders with an approved payment that are cancelled.
    cancelled: BTreeSet<EventId>,
    /// The events of orders that have left a terminal state. If the event is cancelled, the counts of its orders are
    /// stale.
    reopened: BTreeSet<EventId>,
    /// The events of refunded orders.
    refunded: BTreeSet<EventId>,
    /// The transitions of the orders that changed.
    steps: BTreeMap<OrderId, Vec<Step>>,
    messages: Vec<Traced>,
}

impl WorkingSet {
    fn of(locked: Locked) -> Self {
        let mut set = Self::default();
        for (id, order) in locked {
            match order {
                Ok(order) => {
                    set.orders.insert(id, order);
                }
                Err(error) => {
                    set.unreadable.insert(id, error);
                }
            }
        }
        set
    }

    fn apply(&mut self, change: &Change, now: Timestamp, policy: &PaymentPolicy) -> Outcome {
        if let Some(error) = self.unreadable.get(&change.order) {
            return Outcome::Unreadable(error.clone());
        }
        let Some(order) = self.orders.get_mut(&change.order) else {
            return Outcome::Unknown;
        };
        let is_cancelled = self.cancelled.contains(&order.event);
        let replacement = if is_cancelled { change.input.for_cancelled_event() } else { None };
        match order.apply(replacement.as_ref().unwrap_or(&change.input), now, policy) {
            Ok(mut step) => {
                if reopens(&change.input, &step) {
                    self.reopened.insert(order.event);
                }
                if matches!(step.to, State::Refunded(_)) {
                    self.refunded.insert(order.event);
                }
                let outgoing = step.body.take().map(|body| order.message(body));
                let traced = |outgoing| Traced { outgoing, traceparent: change.traceparent.clone() };
                self.messages.extend(outgoing.map(traced));
                self.steps.entry(change.order).or_default().push(step);
                Outcome::Moved(Box::new(order.clone()))
            }
            Err(no_step) => Outcome::Stayed(Box::new(order.clone()), no_step),
        }
    }

    /// Returns the events of expired orders whose payment these changes approve.
    fn events_of_late_payments(&self, changes: &[Change]) -> BTreeSet<EventId> {
        let paid = changes.iter().filter(|change| matches!(change.input, Input::PaymentApproved { .. }));
        let orders = paid.filter_map(|change| self.orders.get(&change.order));
        orders.filter(|order| matches!(order.state, State::Expired { .. })).map(|order| order.event).collect()
    }

    fn changed_orders(&self) -> Vec<ChangedOrder<'_>> {
        self.orders.iter().filter_map(|(id, order)| Some(ChangedOrder { order, steps: self.steps.get(id)? })).collect()
    }
}

/// Returns whether the transition leaves a terminal state by a late payment or a refund. The end of its event is not
/// counted: the walk that ends the event counts that itself.
fn reopens(input: &Input, step: &Step) -> bool {
    step.from.is_terminal() && !matches!(input, Input::EventCancelled { .. })
}
