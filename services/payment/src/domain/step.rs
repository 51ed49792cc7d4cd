//! One transition of a payment: the rows that it changes, its refund, and its message.

use crate::domain::{AttemptKey, OutgoingMessage, Refund};
use stampede_vocab::PaymentId;

/// One transition of a payment, with everything that has to be written for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a step that is not recorded is not written"]
pub struct Step {
    /// The payment, if it is new or its version has changed. An attempt may change without it.
    pub payment: Option<PaymentId>,
    /// The new or changed attempt.
    pub attempt: Option<AttemptKey>,
    /// The refund that it requests, or that was made elsewhere.
    pub refund: Option<Refund>,
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

    /// Returns the step with its refund and message in this trace.
    pub fn traced(self, traceparent: Option<String>) -> Self {
        let refund = self.refund.map(|refund| Refund { traceparent: traceparent.clone(), ..refund });
        let message = self.message.map(|message| OutgoingMessage { traceparent, ..message });
        Self { refund, message, ..self }
    }
}
