//! The outcomes of charges and refunds, from an answer, a look-up or a notice of the provider.

use crate::domain::Doubt;
use stampede_vocab::Money;

/// The outcome of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Captured {
        /// The provider's id of the charge; `None` if there was nothing to pay.
        charge_id: Option<String>,
        amount: Money,
    },
    /// Refused for good: nothing was captured, and nothing will be.
    Declined {
        /// Why, such as `card_declined`.
        code: String,
    },
    /// Not known yet: it is pending, or the provider did not answer.
    Unresolved,
    /// The provider reports it as pending, for longer than it keeps the key. It is looked up at long intervals.
    LongPending,
    /// It was not sent by the process that has just claimed it: the breaker is open.
    NotSent,
    /// The answer is not believed, or none will come.
    InDoubt(Doubt),
}

impl Outcome {
    /// Returns whether it ends an attempt.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Captured { .. } | Self::Declined { .. } => true,
            Self::Unresolved | Self::LongPending | Self::NotSent | Self::InDoubt(_) => false,
        }
    }

    /// Returns the provider's id of the charge that has captured the money.
    pub fn charge_id(&self) -> Option<&str> {
        match self {
            Self::Captured { charge_id, .. } => charge_id.as_deref(),
            Self::Declined { .. } | Self::Unresolved | Self::LongPending | Self::NotSent | Self::InDoubt(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundOutcome {
    Refunded {
        /// The provider's id of the refund; `None` if there was nothing to give back, or it went back another way.
        refund_id: Option<String>,
    },
    /// Not known yet: it is pending, or the provider did not answer. It is looked up, and sent again under the same key
    /// if the provider never received it.
    Unresolved,
    /// The provider reports it as pending, for longer than it keeps the key. It is looked up at long intervals.
    LongPending,
    /// The answer is not believed, or none will come.
    InDoubt(Doubt),
}
