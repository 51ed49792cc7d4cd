//! The requests of the order service.

use crate::domain::OutgoingMessage;
use stampede_vocab::{Money, OrderId, UserId};

/// One request about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRequest {
    pub order_id: OrderId,
    pub action: Action,
    /// The trace in which it was requested.
    pub traceparent: Option<String>,
}

/// The kind of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Charge the buyer.
    Charge {
        /// Buyer.
        user_id: UserId,
        /// 1 for the first attempt of the order.
        attempt: i32,
        /// Amount.
        amount: Money,
        /// The provider's token of the card or wallet.
        payment_method: String,
    },
    /// Refund everything.
    Refund {
        /// Amount of that.
        amount: Money,
    },
    /// The order has ended unpaid: decline the charge if it has not been started.
    Stop,
}

/// What a request has come to. Any request may come again, and at any later time: states decide, not ids of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<T> {
    /// It was new, and has begun this.
    New(T),
    /// It is known and begins nothing. What has its outcome already is answered by a message of it again: the order
    /// service may have lost the first one, and asks because it waits.
    Before(Option<OutgoingMessage>),
}
