//! The messages that the service publishes.

use super::Line;
use stampede_vocab::{CouponId, EventId, Money, OrderId, Timestamp, UserId};

/// One message about one order, written in the transaction of its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    pub order: OrderId,
    /// Its version after the change.
    pub version: i64,
    pub body: MessageBody,
}

/// A fact about an order, or a request to another service.
#[derive(Clone, PartialEq, Eq)]
pub enum MessageBody {
    Placed {
        buyer: UserId,
        /// Event of all lines.
        event: EventId,
        lines: Vec<Line>,
        /// Coupon held for it.
        coupon: Option<CouponId>,
        total: Money,
        /// Order of arrival in the event.
        arrival: i64,
        /// When it was accepted.
        create_time: Timestamp,
        /// Until when it can be paid.
        pay_deadline: Option<Timestamp>,
    },
    /// It was paid after it had expired: its units are to be committed again.
    PaidLate {
        buyer: UserId,
        /// Event of all lines.
        event: EventId,
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
        buyer: UserId,
        /// Coupon that is used now.
        coupon: Option<CouponId>,
        /// When it was fulfilled.
        at: Timestamp,
    },
    Refunded {
        /// Coupon that was used and returns.
        coupon: Option<CouponId>,
    },
    /// Charge the buyer.
    PaymentRequested {
        buyer: UserId,
        /// 1 for the first.
        attempt: i32,
        amount: Money,
        /// Token of the card or wallet.
        method: String,
    },
    /// Refund the whole payment.
    RefundRequested { amount: Money },
}

impl MessageBody {
    /// Returns the name of the message in the contract. The domain does not see proto, so the names are repeated here;
    /// the test `every_message_has_its_name_in_the_contract` guards them.
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

/// Prints the name alone, so that no payment method gets into a log.
impl std::fmt::Debug for MessageBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
