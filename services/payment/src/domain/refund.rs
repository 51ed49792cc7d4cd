//! The refund of captured money.

use crate::domain::{AttemptKey, RefundKey, RefundOutcome, pause::pause};
use stampede_vocab::{Money, Timestamp};

/// The state of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundState {
    /// To be sent to the provider, under the same key until it is done.
    Requested {
        /// Tries so far that had no result.
        checks: u32,
        /// When to send it next.
        due: Timestamp,
    },
    /// Done.
    Refunded {
        /// The provider's id of the refund; `None` if there was nothing to give back.
        refund_id: Option<String>,
    },
}

/// The refund of one attempt's whole charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The attempt whose charge is refunded.
    pub of: AttemptKey,
    /// The provider's id of that charge; `None` if there was nothing to pay.
    pub charge_id: Option<String>,
    /// Amount.
    pub amount: Money,
    /// Its state.
    pub state: RefundState,
    /// The trace in which it was requested.
    pub traceparent: Option<String>,
    /// When it was requested.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Refund {
    /// Returns a refund that is due at once.
    pub fn request(of: AttemptKey, charge_id: Option<String>, amount: Money, now: Timestamp) -> Self {
        let state = RefundState::Requested { checks: 0, due: now };
        Self { of, charge_id, amount, state, traceparent: None, created_at: now, updated_at: now }
    }

    /// Returns the idempotency key at the provider.
    pub fn key(&self) -> RefundKey {
        RefundKey(self.of)
    }

    /// Returns the number of tries so far that had no result.
    pub fn checks(&self) -> u32 {
        match self.state {
            RefundState::Requested { checks, .. } => checks,
            RefundState::Refunded { .. } => 0,
        }
    }

    /// Applies an outcome. Returns whether it finished the refund; one that is finished does not change any more.
    pub fn settle(&mut self, outcome: RefundOutcome, now: Timestamp) -> bool {
        let RefundState::Requested { checks, .. } = self.state else {
            return false;
        };
        self.updated_at = now;
        match outcome {
            RefundOutcome::Refunded { refund_id } => {
                self.state = RefundState::Refunded { refund_id };
                true
            }
            RefundOutcome::Unresolved => {
                let checks = checks.saturating_add(1);
                self.state = RefundState::Requested { checks, due: now.plus(pause(self.of.payment_id, checks)) };
                false
            }
        }
    }
}
