//! Finishes orders that were accepted before the ledger was asked, with an inventory of an earlier release: their units are
//! taken as those of a new order are, and if there are none the order is cancelled and returns its coupon.

use super::{Change, Outcome, Transitions};
use crate::{
    client::Inventory,
    domain::{Input, NoStep, Order, Reserved, State, StateName},
    store,
};
use futures_util::future::join_all;
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::time::Duration;

/// Orders that are taken on in one go.
const BATCH_SIZE: u32 = 256;

/// How long an order is left to the message of an inventory of an earlier release, which answers it as long as it runs.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// Finishes pending orders.
pub struct FinishPending {
    db: Database,
    inventory: Inventory,
    transitions: Transitions,
    /// Where the next round goes on, so that those that have to wait do not keep the others waiting.
    after: Option<OrderId>,
}

/// What inventory says of one order: the units that are in the ledger now, or that there are none.
type Answer<'o> = (&'o Order, Option<Reserved>);

impl FinishPending {
    /// Finishes orders of this schema with the help of inventory.
    pub fn new(db: Database, inventory: Inventory, transitions: Transitions) -> Self {
        Self { db, inventory, transitions, after: None }
    }

    /// Takes on a batch of them; the next round goes on behind it.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let after = self.after.take();
        let read = self.db.run("pending_orders", |mut conn| async move {
            store::orders::without_deadline(&mut conn, StateName::Pending, after, BATCH_SIZE).await
        });
        let pending: Vec<Order> = read.await?;
        if pending.len() == BATCH_SIZE as usize {
            self.after = pending.last().map(|order| order.id);
        }
        let before = Timestamp::now().minus(LEFT_ALONE);
        let pending = pending.iter().filter(|order| order.created_at < before);
        let answers = join_all(pending.map(|order| self.ask(order))).await;
        let answers: Vec<Answer<'_>> = answers.into_iter().flatten().collect();
        if answers.is_empty() {
            return Ok(());
        }
        let outcomes = self.transitions.run("finish_pending", answers.iter().map(change).collect()).await?;
        for (answer, outcome) in answers.iter().zip(&outcomes) {
            self.give_back_if_cancelled(answer, outcome).await;
        }
        Ok(())
    }

    async fn ask<'o>(&self, order: &'o Order) -> Option<Answer<'o>> {
        match self.inventory.reserve_written(order).await {
            Ok(answer) => answer.map(|reserved| (order, reserved)),
            Err(error) => {
                tracing::warn!(order.id = %order.id, error.cause = %error, "an order of an earlier release waits");
                None
            }
        }
    }

    /// An order that was cancelled before its units were taken has nobody else who gives them back.
    async fn give_back_if_cancelled(&self, (order, reserved): &Answer<'_>, outcome: &Outcome) {
        let Outcome::Stayed(now, NoStep::Ignored) = outcome else { return };
        let asked_at: Option<Timestamp> = reserved.as_ref().and_then(|reserved| reserved.asked_at);
        let Some(asked_at) = asked_at.filter(|_| matches!(now.state, State::Cancelled { .. })) else { return };
        if let Err(error) = self.inventory.release(order.event, order.id, asked_at).await {
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
