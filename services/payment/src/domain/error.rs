//! Why a request is refused, and the invariants of money that the provider may violate.

use crate::domain::{AttemptKey, PaymentState};
use stampede_vocab::{Money, OrderId, PaymentId};

/// Why a message of the order service cannot be applied. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The payment is past the point where it could be charged.
    #[error("payment {payment_id} is {state} and takes no further attempt")]
    NotOpen { payment_id: PaymentId, state: PaymentState },
    /// Another attempt of the payment has not ended.
    #[error("attempt {number} of payment {payment_id} has not ended")]
    AttemptUnderWay {
        payment_id: PaymentId,
        /// The attempt that has not ended.
        number: i32,
    },
    /// The amount is not that of the payment.
    #[error("payment {payment_id} is over {expected}, not {asked}")]
    AmountDiffers {
        payment_id: PaymentId,
        /// The payment's amount.
        expected: Money,
        asked: Money,
    },
    /// Nothing was captured that could be refunded.
    #[error("nothing was captured for order {0}")]
    NothingCaptured(OrderId),
}

/// An invariant violation: the provider and this service disagree about a charge. It is logged as an error, and money
/// that was captured in surplus is refunded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    /// The provider reports an attempt that was never made.
    #[error("the provider knows the attempt {0}, which was never made")]
    NoSuchAttempt(AttemptKey),
    /// The provider captured another amount than was requested.
    #[error("{captured} was captured for {key}, but {asked} was asked for")]
    WrongAmount { key: AttemptKey, asked: Money, captured: Money },
    /// The provider declines what it has captured.
    #[error("the provider declines {0}, which it has captured before")]
    DeclinedAfterCapture(AttemptKey),
    /// The provider captured an attempt that is declined, or a second one. The surplus is refunded.
    #[error("{0} was captured in surplus and goes back")]
    CapturedInSurplus(AttemptKey),
}
