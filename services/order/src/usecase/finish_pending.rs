//! Finishes pending orders, which were accepted before their units were committed, with an inventory of an earlier
//! release. Reserves the units as for a new order. If there are none, cancels the order and returns its coupon.

use super::{Change, Outcome, Transitions, readable};
use crate::{
    client::Inventory,
    domain::{Input, NoStep, Order, Reserved, State},
    store::{self, Stored},
};
use futures_util::future::join_all;
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::time::Duration;

/// Most orders of one round.
const BATCH_SIZE: u32 = 256;

/// Age up to which an order is left to an inventory of an earlier release, which reports the commit by message.
const MIN_AGE: Duration = Duration::from_secs(60);

pub struct FinishPending {
    db: Database,
    inventory: Inventory,
    transitions: Transitions,
    /// Cursor of the next round, so that orders that have to wait do not block those behind them.
    after: Option<OrderId>,
}

/// Inventory's answer for one order: the committed units, or that there are none.
type Answer<'o> = (&'o Order, Option<Reserved>);

impl FinishPending {
    /// Finishes orders of this schema, with units from inventory.
    pub fn new(db: Database, inventory: Inventory, transitions: Transitions) -> Self {
        Self { db, inventory, transitions, after: None }
    }

    /// Processes one batch; the next round continues after it.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let after = self.after.take();
        let read = self.db.run("pending_orders", |mut conn| async move {
            store::orders::pending(&mut conn, after, BATCH_SIZE).await
        });
        let pending: Vec<Stored> = read.await?;
        if pending.len() == BATCH_SIZE as usize {
            self.after = pending.last().map(|order| order.id);
        }
        let before = Timestamp::now().minus(MIN_AGE);
        let old_enough = pending.into_iter().filter(|stored| stored.created_at < before);
        let old_enough: Vec<Order> = old_enough.filter_map(|stored| readable(stored.id, stored.order)).collect();
        let answers = join_all(old_enough.iter().map(|order| self.reserve(order))).await;
        let answers: Vec<Answer<'_>> = answers.into_iter().flatten().collect();
        if answers.is_empty() {
            return Ok(());
        }
        let outcomes = self.transitions.run_each("finish_pending", answers.iter().map(change).collect()).await;
        let mut failed = Ok(());
        for (answer, outcome) in answers.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => self.release_if_cancelled(answer, &outcome).await,
                Err(error) if error.is_of_data() => {
                    let id = answer.0.id;
                    tracing::error!(
                        order.id = %id, error.cause = %error,
                        "order is left as it is, it cannot be changed"
                    );
                }
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn reserve<'o>(&self, order: &'o Order) -> Option<Answer<'o>> {
        match self.inventory.reserve_written(order).await {
            Ok(answer) => answer.map(|reserved| (order, reserved)),
            Err(error) => {
                tracing::warn!(order.id = %order.id, error.cause = %error, "an order of an earlier release waits");
                None
            }
        }
    }

    /// Releases the units of an order that was cancelled before they were reserved: nothing else does.
    async fn release_if_cancelled(&self, (order, reserved): &Answer<'_>, outcome: &Outcome) {
        let Outcome::Stayed(now, NoStep::Ignored) = outcome else { return };
        let request_time: Option<Timestamp> = reserved.as_ref().and_then(|reserved| reserved.request_time);
        let Some(request_time) = request_time.filter(|_| matches!(now.state, State::Cancelled { .. })) else { return };
        if let Err(error) = self.inventory.release(order.event, order.id, request_time).await {
            tracing::warn!(order.id = %order.id, error.cause = %error, "the units of a cancelled order could not be given back");
        }
    }
}

fn change((order, reserved): &Answer<'_>) -> Change {
    let input = match reserved {
        Some(reserved) => {
            let gifts = reserved.lines.iter().map(|line| (line.item, line.gift_units)).collect();
            Input::StockCommitted { gifts }
        }
        None => Input::StockRejected,
    };
    Change { order: order.id, input, traceparent: None }
}
