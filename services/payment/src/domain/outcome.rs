//! What the provider says about a charge or a refund, in answer to a request, a look-up, or of its own accord.

use stampede_vocab::Money;

/// What became of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The money was taken.
    Captured {
        /// The provider's id of the charge; `None` if there was nothing to pay.
        charge_id: Option<String>,
        /// How much was taken.
        amount: Money,
    },
    /// Refused for good: nothing was taken, and nothing will be.
    Declined {
        /// Why, such as `card_declined`.
        code: String,
    },
    /// Nobody can say yet: it is pending, or the provider did not answer.
    Unresolved,
}

/// What became of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundOutcome {
    /// The money is back.
    Refunded {
        /// The provider's id of the refund; `None` if there was nothing to give back.
        refund_id: Option<String>,
    },
    /// The provider did not answer, or did not do it: it is asked again under the same key.
    Unresolved,
}
