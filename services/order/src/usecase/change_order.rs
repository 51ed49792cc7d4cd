//! Changes that a caller requests: pay, cancel, refund. Concurrent requests are batched.

use super::{Change, Error, Outcome, Transitions, batch};
use crate::domain::{CommandRefusal, Input, NoStep, Order, PayRequest};
use stampede_batch::Batcher;
use stampede_db::DbError;
use stampede_outbox::current_traceparent;
use stampede_vocab::{OrderId, RequestId, UserId};

/// Pays, cancels and refunds. Cheap to clone.
#[derive(Clone)]
pub struct ChangeOrder {
    queue: Batcher<Change, Result<Outcome, DbError>>,
    /// For orders that somebody else has locked: who waits for those keeps nobody else waiting.
    locked: Batcher<Change, Result<Outcome, DbError>>,
}

impl ChangeOrder {
    /// Changes orders in batches.
    pub fn new(transitions: Transitions) -> Self {
        let waiting = transitions.clone();
        Self {
            queue: Batcher::new(batch("change_orders"), move |changes| change_free(transitions.clone(), changes)),
            locked: Batcher::new(batch("change_locked_orders"), move |changes| change_all(waiting.clone(), changes)),
        }
    }

    /// Starts a payment. A repeat of any payment request of the order starts nothing and returns the order; another
    /// payment under the same idempotency key is refused.
    pub async fn pay(&self, order: OrderId, buyer: UserId, request: RequestId, method: String) -> Result<Order, Error> {
        let request = PayRequest::new(request, &method);
        self.change(order, Input::Pay { buyer, request, method }).await
    }

    /// Cancels an order that is not being paid. A repeat of the request returns the order.
    pub async fn cancel(&self, order: OrderId, buyer: UserId, request: RequestId) -> Result<Order, Error> {
        self.change(order, Input::Cancel { buyer, request }).await
    }

    /// Refunds a fulfilled order. A repeat of the request returns the order.
    pub async fn refund(&self, order: OrderId, operator: UserId, request: RequestId) -> Result<Order, Error> {
        self.change(order, Input::Refund { operator, request }).await
    }

    async fn change(&self, order: OrderId, input: Input) -> Result<Order, Error> {
        let change = Change { order, input, traceparent: current_traceparent() };
        let mut outcome = self.queue.call(change.clone()).await??;
        if matches!(outcome, Outcome::Unknown) {
            // Locked, or never written.
            outcome = self.locked.call(change).await??;
        }
        match outcome {
            Outcome::Stayed(_, NoStep::Refused(refusal)) => Err(refusal.into()),
            Outcome::Moved(order) | Outcome::Stayed(order, NoStep::AlreadyApplied | NoStep::Ignored) => Ok(*order),
            Outcome::Unknown => Err(CommandRefusal::NotFound.into()),
            Outcome::Unreadable(error) => Err(error.into()),
        }
    }
}

async fn change_free(transitions: Transitions, changes: Vec<Change>) -> Vec<Result<Outcome, DbError>> {
    let count = changes.len();
    each(count, transitions.run_unlocked("change_orders", changes).await)
}

async fn change_all(transitions: Transitions, changes: Vec<Change>) -> Vec<Result<Outcome, DbError>> {
    let count = changes.len();
    each(count, transitions.run("change_locked_orders", changes).await)
}

fn each(count: usize, changed: Result<Vec<Outcome>, DbError>) -> Vec<Result<Outcome, DbError>> {
    match changed {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); count],
    }
}
