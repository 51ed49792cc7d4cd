//! The refusals of requests, and the invariants of money that the provider may violate.

use crate::domain::{AttemptKey, Doubt, PaymentState};
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

/// An invariant violation: the provider and this service disagree about a charge or a refund. It is logged as an error.
/// A surplus capture is refunded; anything else is stored for an operator to settle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    /// The provider reports an attempt that was never made.
    #[error("the provider knows the attempt {0}, which was never made")]
    NoSuchAttempt(AttemptKey),
    /// The provider captured another amount than was requested.
    #[error("{captured} was captured for {key}, but {asked} was asked for")]
    WrongAmount { key: AttemptKey, asked: Money, captured: Money },
    /// The provider captured a second charge under one key.
    #[error("{reported} was captured for {key} besides {known}")]
    AnotherCharge {
        key: AttemptKey,
        /// The provider's id of the charge that is stored.
        known: String,
        /// That of the other one.
        reported: String,
    },
    /// The provider declines what it has captured.
    #[error("the provider declines {0}, which it has captured before")]
    DeclinedAfterCapture(AttemptKey),
    /// The provider captured an attempt that is declined, or a second one. The surplus is refunded.
    #[error("{0} was captured in surplus and goes back")]
    CapturedInSurplus(AttemptKey),
    /// The outcome of a charge cannot be found out.
    #[error("the charge {key} is parked: {doubt}")]
    ChargeInDoubt { key: AttemptKey, doubt: Doubt },
    /// The outcome of a refund cannot be found out.
    #[error("the refund of {key} is parked: {doubt}")]
    RefundInDoubt { key: AttemptKey, doubt: Doubt },
    /// The provider had reported a refund as done, and reports otherwise now: the buyer may not have the money.
    #[error("the refund of {key} was done, and is not any more: {doubt}")]
    RefundTakenBack { key: AttemptKey, doubt: Doubt },
    /// A refund that this service has not requested, as by hand at the provider.
    #[error("{refunded} of the {captured} that {key} captured were refunded at the provider, and not by this service")]
    RefundedElsewhere { key: AttemptKey, refunded: Money, captured: Money },
}

/// The subject of an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Charge,
    Refund,
}

impl Subject {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "CHARGE",
            Self::Refund => "REFUND",
        }
    }
}

impl Anomaly {
    /// Returns the attempt whose charge or refund it is about.
    pub fn key(&self) -> AttemptKey {
        match self {
            Self::NoSuchAttempt(key) | Self::DeclinedAfterCapture(key) | Self::CapturedInSurplus(key) => *key,
            Self::WrongAmount { key, .. }
            | Self::AnotherCharge { key, .. }
            | Self::ChargeInDoubt { key, .. }
            | Self::RefundInDoubt { key, .. }
            | Self::RefundTakenBack { key, .. }
            | Self::RefundedElsewhere { key, .. } => *key,
        }
    }

    pub fn subject(&self) -> Subject {
        match self {
            Self::RefundInDoubt { .. } | Self::RefundTakenBack { .. } | Self::RefundedElsewhere { .. } => {
                Subject::Refund
            }
            Self::NoSuchAttempt(_)
            | Self::WrongAmount { .. }
            | Self::AnotherCharge { .. }
            | Self::DeclinedAfterCapture(_)
            | Self::CapturedInSurplus(_)
            | Self::ChargeInDoubt { .. } => Subject::Charge,
        }
    }

    /// Returns the name that is stored and shown.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchAttempt(_) => "NO_SUCH_ATTEMPT",
            Self::WrongAmount { .. } => "WRONG_AMOUNT",
            Self::AnotherCharge { .. } => "ANOTHER_CHARGE",
            Self::DeclinedAfterCapture(_) => "DECLINED_AFTER_CAPTURE",
            Self::CapturedInSurplus(_) => "CAPTURED_IN_SURPLUS",
            Self::ChargeInDoubt { doubt, .. } | Self::RefundInDoubt { doubt, .. } => doubt.kind(),
            Self::RefundTakenBack { .. } => "REFUND_TAKEN_BACK",
            Self::RefundedElsewhere { refunded, captured, .. } if refunded == captured => "REFUNDED_ELSEWHERE",
            Self::RefundedElsewhere { .. } => "PARTLY_REFUNDED_ELSEWHERE",
        }
    }

    /// Returns whether an operator has to settle it. A surplus is refunded automatically.
    pub fn is_for_operator(&self) -> bool {
        !matches!(self, Self::CapturedInSurplus(_))
    }
}
