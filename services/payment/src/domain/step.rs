//! One transition of a payment: the rows that it changes, its refund, and its message.

use crate::domain::{AttemptKey, OutgoingMessage, Refund};
use stampede_vocab::PaymentId;

/// One transition that was applied to a payment, with everything that is to be written of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a step that is not recorded is not written"]
pub struct Step {
    /// The payment, if it is new or has a new version. An attempt may change without it.
    pub payment: Option<PaymentId>,
    /// The attempt that is new or has changed.
    pub attempt: Option<AttemptKey>,
    /// The refund that it requests, or that is found to be done.
    pub refund: Option<Refund>,
    /// The message to publish.
    pub message: Option<OutgoingMessage>,
}

impl Step {
    pub(super) fn of_attempt(attempt: AttemptKey) -> Self {
        Self { attempt: Some(attempt), ..Self::default() }
    }

    pub(super) fn requesting(self, refund: Refund) -> Self {
        Self { refund: Some(refund), ..self }
    }

    pub(super) fn publishing(self, message: OutgoingMessage) -> Self {
        Self { message: Some(message), ..self }
    }

    /// Returns the step with its refund and its message in this trace, whatever theirs was.
    pub fn traced(self, traceparent: Option<String>) -> Self {
        let refund = self.refund.map(|refund| Refund { traceparent: traceparent.clone(), ..refund });
        let message = self.message.map(|message| OutgoingMessage { traceparent, ..message });
        Self { refund, message, ..self }
    }
}
