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
    /// For orders that another transaction has locked, so that waiting for them does not block the other queue.
    locked: Batcher<Change, Result<Outcome, DbError>>,
}

impl ChangeOrder {
    pub fn new(transitions: Transitions) -> Self {
        let for_locked = transitions.clone();
        let change_unlocked = move |changes| {
            let transitions = transitions.clone();
            async move { transitions.run_each_unlocked("change_orders", changes).await }
        };
        let change_waiting = move |changes| {
            let transitions = for_locked.clone();
            async move { transitions.run_each("change_locked_orders", changes).await }
        };
        Self {
            queue: Batcher::new(batch("change_orders"), change_unlocked),
            locked: Batcher::new(batch("change_locked_orders"), change_waiting),
        }
    }

    /// Starts a payment. Idempotent: a repeat of any payment request of the order returns the order. Refuses another
    /// payment method under a used idempotency key.
    pub async fn pay(&self, order: OrderId, buyer: UserId, request: RequestId, method: String) -> Result<Order, Error> {
        let request = PayRequest::new(request, &method);
        self.change(order, Input::Pay { buyer, request, method }).await
    }

    /// Cancels an order that is not being paid, if the caller may: `owner` is `None` for a caller who may cancel every
    /// order. A repeat of the request by the same caller returns the order.
    pub async fn cancel(
        &self,
        order: OrderId,
        owner: Option<UserId>,
        by: UserId,
        request: RequestId,
    ) -> Result<Order, Error> {
        self.change(order, Input::Cancel { owner, by, request }).await
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
