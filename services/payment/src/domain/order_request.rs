//! The requests of the order service.

use stampede_vocab::{Money, OrderId, UserId};

/// One request about an order. It may be repeated at any later time: states detect duplicates, not ids of messages.
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
    Charge {
        /// Buyer.
        user_id: UserId,
        /// 1 for the first attempt of the order.
        attempt: i32,
        amount: Money,
        /// The provider's token of the card or wallet.
        payment_method: String,
    },
    /// Refund everything.
    Refund {
        /// The captured amount.
        amount: Money,
    },
    /// The order has ended unpaid: decline the charge if it has not been started.
    Stop,
}
