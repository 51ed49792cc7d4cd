//! The messages that the service publishes.

use stampede_vocab::{Money, OrderId, PaymentId};

/// A message to be published, in the order of the payment's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    pub payment_id: PaymentId,
    pub order_id: OrderId,
    /// Version of the payment after the change.
    pub version: i64,
    /// The trace in which it was requested.
    pub traceparent: Option<String>,
    pub body: MessageBody,
}

/// A fact about a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageBody {
    Approved {
        attempt: i32,
        captured: Money,
    },
    /// An attempt failed for good.
    Declined {
        attempt: i32,
        /// Why.
        code: String,
    },
    Refunded {
        refunded: Money,
    },
}
