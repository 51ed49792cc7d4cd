//! What the order service asks for, as far as it concerns payments.

use stampede_vocab::{Money, OrderId, UserId};

/// One request about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRequest {
    pub order_id: OrderId,
    pub ask: Ask,
    /// The trace in which it was asked.
    pub traceparent: Option<String>,
}

/// What the order service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Charge the buyer.
    Charge {
        /// Buyer.
        user_id: UserId,
        /// 1 for the first attempt of the order.
        attempt: i32,
        /// How much.
        amount: Money,
        /// The provider's token of the card or wallet.
        payment_method: String,
    },
    /// Give everything back.
    Refund {
        /// How much that is.
        amount: Money,
    },
    /// The order has ended unpaid: start no charge that has not been started.
    Stop,
}
