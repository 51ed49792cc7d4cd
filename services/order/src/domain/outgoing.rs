//! What the service tells the others, before anybody has encoded it.

use super::Line;
use stampede_vocab::{CouponId, EventId, Money, OrderId, Timestamp, UserId};

/// One message about one order, written in the transaction of the change it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    pub order: OrderId,
    /// Its version after the change.
    pub version: i64,
    /// What happened.
    pub body: MessageBody,
}

/// What happened to an order, or what it asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum MessageBody {
    /// It was accepted.
    Placed {
        /// Who buys.
        buyer: UserId,
        /// Event of all lines.
        event: EventId,
        /// What was bought.
        lines: Vec<Line>,
        /// Coupon held for it.
        coupon: Option<CouponId>,
        /// What is to be paid.
        total: Money,
        /// Order of arrival in the event.
        arrival: i64,
        /// When it was accepted.
        placed_at: Timestamp,
        /// Until when it can be paid.
        pay_by: Option<Timestamp>,
    },
    /// It is paid although it had expired: commit its units again.
    PaidLate {
        /// Who buys.
        buyer: UserId,
        /// Event of all lines.
        event: EventId,
        /// What was bought.
        lines: Vec<Line>,
    },
    /// The buyer cancelled it.
    Cancelled {
        /// Coupon that returns.
        coupon: Option<CouponId>,
    },
    /// It was not paid in time.
    Expired {
        /// Coupon that returns.
        coupon: Option<CouponId>,
    },
    /// It is paid and the goods are granted.
    Fulfilled {
        /// Who has bought.
        buyer: UserId,
        /// Coupon that is used now.
        coupon: Option<CouponId>,
        /// When.
        at: Timestamp,
    },
    /// The money is back.
    Refunded {
        /// Coupon that was used and returns.
        coupon: Option<CouponId>,
    },
    /// Charge the buyer.
    PaymentRequested {
        /// Who pays.
        buyer: UserId,
        /// 1 for the first.
        attempt: i32,
        /// How much.
        amount: Money,
        /// Token of the card or wallet.
        method: String,
    },
    /// Give all money back.
    RefundRequested {
        /// How much.
        amount: Money,
    },
}

impl MessageBody {
    /// Name of the message in the contract.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Placed { .. } => "OrderPlaced",
            Self::PaidLate { .. } => "OrderPaidLate",
            Self::Cancelled { .. } => "OrderCancelled",
            Self::Expired { .. } => "OrderExpired",
            Self::Fulfilled { .. } => "OrderFulfilled",
            Self::Refunded { .. } => "OrderRefunded",
            Self::PaymentRequested { .. } => "PaymentRequested",
            Self::RefundRequested { .. } => "RefundRequested",
        }
    }
}

/// The name alone: a payment method must not get into a log by way of `{:?}`.
impl std::fmt::Debug for MessageBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
