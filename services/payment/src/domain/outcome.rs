//! The outcomes of charges and refunds, from an answer, a look-up or a notice of the provider.

use stampede_vocab::Money;

/// The outcome of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The money was captured.
    Captured {
        /// The provider's id of the charge; `None` if there was nothing to pay.
        charge_id: Option<String>,
        /// Captured amount.
        amount: Money,
    },
    /// Refused for good: nothing was captured, and nothing will be.
    Declined {
        /// Why, such as `card_declined`.
        code: String,
    },
    /// Not known yet: it is pending, or the provider did not answer.
    Unresolved,
}

/// The outcome of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundOutcome {
    /// The money was refunded.
    Refunded {
        /// The provider's id of the refund; `None` if there was nothing to give back.
        refund_id: Option<String>,
    },
    /// The provider did not answer or failed. The refund is sent again under the same key.
    Unresolved,
}
