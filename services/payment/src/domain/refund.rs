//! The refund of captured money.

use crate::domain::{
    Anomaly, AttemptKey, Doubt, RefundKey, RefundOutcome, Verdict,
    backoff::{backoff, slow_backoff},
};
use stampede_vocab::{Money, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundState {
    /// To be sent to the provider, under the same key until it is done.
    Requested {
        /// Tries so far that had no result.
        checks: u32,
        /// When to send it next.
        due: Timestamp,
    },
    /// The provider's answer does not fit, or none will come. Nothing more is sent or looked up, until an operator
    /// decides or the provider reports its end.
    Parked,
    Refunded {
        /// The provider's id of the refund; `None` if there was nothing to give back, or it went back another way.
        refund_id: Option<String>,
    },
}

/// How an outcome changed the refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundSettled {
    /// The money is back.
    Finished,
    /// It is not done; the next try is scheduled.
    StillOpen,
    /// It is parked, for an operator to settle.
    Parked(Anomaly),
    /// The outcome was stored before.
    AlreadyKnown,
}

/// The refund of one attempt's whole charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The attempt whose charge is refunded.
    pub of: AttemptKey,
    /// The provider's id of that charge; `None` if there was nothing to pay.
    pub charge_id: Option<String>,
    pub amount: Money,
    pub state: RefundState,
    /// The trace in which it was requested.
    pub traceparent: Option<String>,
    /// When it was requested.
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Refund {
    /// Returns a refund that is due at once.
    pub fn request(of: AttemptKey, charge_id: Option<String>, amount: Money, now: Timestamp) -> Self {
        let state = RefundState::Requested { checks: 0, due: now };
        Self { of, charge_id, amount, state, traceparent: None, created_at: now, updated_at: now }
    }

    /// Returns a refund that was made elsewhere, as by hand at the provider.
    pub fn made_elsewhere(of: AttemptKey, charge_id: Option<String>, amount: Money, now: Timestamp) -> Self {
        Self { state: RefundState::Refunded { refund_id: None }, ..Self::request(of, charge_id, amount, now) }
    }

    /// Returns the idempotency key at the provider.
    pub fn key(&self) -> RefundKey {
        RefundKey(self.of)
    }

    /// Returns the number of tries so far that had no result.
    pub fn checks(&self) -> u32 {
        match self.state {
            RefundState::Requested { checks, .. } => checks,
            RefundState::Parked | RefundState::Refunded { .. } => 0,
        }
    }

    /// Applies an outcome. A refund that is done never changes, and a parked one only becomes done.
    pub fn settle(&mut self, outcome: RefundOutcome, now: Timestamp) -> RefundSettled {
        match (self.state.clone(), outcome) {
            (RefundState::Refunded { .. }, _)
            | (
                RefundState::Parked,
                RefundOutcome::Unresolved | RefundOutcome::LongPending | RefundOutcome::InDoubt(_),
            ) => RefundSettled::AlreadyKnown,
            (_, RefundOutcome::Refunded { refund_id }) => {
                self.change(RefundState::Refunded { refund_id }, now);
                RefundSettled::Finished
            }
            (RefundState::Requested { .. }, RefundOutcome::InDoubt(doubt)) => {
                self.change(RefundState::Parked, now);
                RefundSettled::Parked(Anomaly::RefundInDoubt { key: self.of, doubt })
            }
            (RefundState::Requested { checks, .. }, RefundOutcome::Unresolved) => {
                let checks = checks.saturating_add(1);
                let due = now.plus(backoff(self.of.payment_id, checks));
                self.change(RefundState::Requested { checks, due }, now);
                RefundSettled::StillOpen
            }
            // It was answered, so failures are counted anew: from 1, since at 0 it would be sent without a look-up.
            (RefundState::Requested { .. }, RefundOutcome::LongPending) => {
                let due = now.plus(slow_backoff(self.of.payment_id, now.since(self.created_at)));
                self.change(RefundState::Requested { checks: 1, due }, now);
                RefundSettled::StillOpen
            }
        }
    }

    /// Returns an anomaly if the provider had done this refund and reports otherwise now, as of a card that is closed.
    /// The refund stays done, since its order has ended. Ignores one that went back another way, and a request that was
    /// refused or not answered, which says nothing of the refund.
    pub fn taken_back(&self, outcome: &RefundOutcome) -> Option<Anomaly> {
        match (&self.state, outcome) {
            (
                RefundState::Refunded { refund_id: Some(_) },
                RefundOutcome::InDoubt(doubt @ (Doubt::Failed | Doubt::OtherAmount(_) | Doubt::UnknownState)),
            ) => Some(Anomaly::RefundTakenBack { key: self.of, doubt: doubt.clone() }),
            _ => None,
        }
    }

    /// Carries out the decision of an operator on a parked refund. Returns whether it is done now. Does nothing if it
    /// is not parked any more.
    pub fn apply_verdict(&mut self, verdict: Verdict, now: Timestamp) -> bool {
        match verdict {
            // With a count of 1, so that it is looked up before it is sent again.
            Verdict::Retry if self.state == RefundState::Parked => {
                self.change(RefundState::Requested { checks: 1, due: now }, now);
                false
            }
            Verdict::Refunded if self.state == RefundState::Parked => {
                self.change(RefundState::Refunded { refund_id: None }, now);
                true
            }
            Verdict::Retry | Verdict::Declined | Verdict::Refunded | Verdict::Noted => false,
        }
    }

    fn change(&mut self, state: RefundState, now: Timestamp) {
        self.state = state;
        self.updated_at = now;
    }
}
