//! Attempts to charge.

use crate::domain::AttemptKey;
use stampede_vocab::{Money, Timestamp};

/// The state of an attempt, with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptState {
    /// Queued. The provider does not know of it.
    Requested,
    /// Claimed by a process that charges it.
    Charging {
        /// When the lease ends and the reconciler may claim the attempt.
        lease_until: Timestamp,
    },
    /// The provider may or may not have charged. The charge is looked up, and never sent under another key.
    Unknown {
        /// Look-ups so far that had no result.
        checks: u32,
        /// When to look it up next.
        next_check: Timestamp,
    },
    /// The provider's answer does not fit, or none will come. Nothing more is sent or looked up, until an operator
    /// decides or the provider reports its end.
    Parked,
    /// Captured.
    Approved {
        /// The provider's id of the charge; `None` if there was nothing to pay.
        charge_id: Option<String>,
    },
    /// Refused, or the order ended before the charge was sent.
    Declined {
        /// Why, such as `card_declined`.
        code: String,
    },
}

impl AttemptState {
    /// Returns whether it has ended.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Approved { .. } | Self::Declined { .. } => true,
            Self::Requested | Self::Charging { .. } | Self::Unknown { .. } | Self::Parked => false,
        }
    }

    /// Returns the number of look-ups so far that had no result.
    pub fn checks(&self) -> u32 {
        match self {
            Self::Unknown { checks, .. } => *checks,
            Self::Requested | Self::Charging { .. } | Self::Parked | Self::Approved { .. } | Self::Declined { .. } => 0,
        }
    }
}

/// One attempt, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first of its payment.
    pub number: i32,
    /// The provider's token of the card or wallet.
    pub payment_method: String,
    pub state: AttemptState,
    /// The trace in which it was requested.
    pub traceparent: Option<String>,
    /// When it was requested.
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The request to the provider for an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRequest {
    /// The attempt, and the key of the charge.
    pub key: AttemptKey,
    pub amount: Money,
    /// Token of the card or wallet.
    pub payment_method: String,
    /// Look-ups so far that had no result.
    pub checks: u32,
    /// When it was requested, before it was first sent.
    pub requested_at: Timestamp,
}
