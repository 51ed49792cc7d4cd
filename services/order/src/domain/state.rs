//! The states of an order, each with its data.

use stampede_vocab::Timestamp;

/// A terminal state of an earlier release.
const REJECTED: &str = "REJECTED";

/// The state of an order and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Accepted before its units were committed, with an inventory of an earlier release; to be finished.
    Pending,
    /// The units are committed; may be paid until `pay_deadline`.
    AwaitingPayment {
        pay_deadline: Timestamp,
    },
    /// A payment is under way.
    Paying {
        /// The deadline as of the start of the payment.
        pay_deadline: Timestamp,
    },
    /// Paid after it had expired; its units are being committed again.
    Paid {
        /// The deadline that was missed.
        pay_deadline: Timestamp,
    },
    /// Paid, and the goods are granted.
    Fulfilled {
        /// The deadline that was met, or missed by a late payment.
        pay_deadline: Timestamp,
        /// When the goods were granted.
        at: Timestamp,
    },
    /// Not paid in time.
    Expired {
        /// The deadline that was missed.
        pay_deadline: Timestamp,
    },
    /// Cancelled by the buyer or an operator.
    Cancelled {
        /// The deadline, if the units had been committed.
        pay_deadline: Option<Timestamp>,
    },
    /// A refund is under way.
    Refunding(RefundOrigin),
    Refunded(RefundOrigin),
}

/// The history of an order that ends in a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundOrigin {
    /// The deadline, if the units had ever been committed.
    pub pay_deadline: Option<Timestamp>,
    /// When the goods were granted, if they were.
    pub fulfill_time: Option<Timestamp>,
}

/// The name of a state, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    Pending,
    AwaitingPayment,
    Paying,
    Paid,
    Fulfilled,
    Expired,
    Cancelled,
    Refunding,
    Refunded,
}

impl StateName {
    /// Returns whether it is terminal. A late payment or a refund may still change it.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Fulfilled | Self::Expired | Self::Cancelled | Self::Refunded => true,
            Self::Pending | Self::AwaitingPayment | Self::Paying | Self::Paid | Self::Refunding => false,
        }
    }

    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::AwaitingPayment,
        Self::Paying,
        Self::Paid,
        Self::Fulfilled,
        Self::Expired,
        Self::Cancelled,
        Self::Refunding,
        Self::Refunded,
    ];

    /// Returns the name in the contract without its prefix, which the `state` column has too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::AwaitingPayment => "AWAITING_PAYMENT",
            Self::Paying => "PAYING",
            Self::Paid => "PAID",
            Self::Fulfilled => "FULFILLED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Refunding => "REFUNDING",
            Self::Refunded => "REFUNDED",
        }
    }

    /// Returns every name that [`StateName::parse`] reads as this state.
    pub fn stored_names(self) -> impl Iterator<Item = &'static str> {
        [self.as_str()].into_iter().chain((self == Self::Cancelled).then_some(REJECTED))
    }

    /// Parses a name that [`StateName::as_str`] returned, or REJECTED, which reads as cancelled: an earlier release
    /// could refuse an order after it was accepted.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text == REJECTED { Self::Cancelled.as_str() } else { text };
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

impl State {
    pub const fn name(&self) -> StateName {
        match self {
            Self::Pending => StateName::Pending,
            Self::AwaitingPayment { .. } => StateName::AwaitingPayment,
            Self::Paying { .. } => StateName::Paying,
            Self::Paid { .. } => StateName::Paid,
            Self::Fulfilled { .. } => StateName::Fulfilled,
            Self::Expired { .. } => StateName::Expired,
            Self::Cancelled { .. } => StateName::Cancelled,
            Self::Refunding(_) => StateName::Refunding,
            Self::Refunded(_) => StateName::Refunded,
        }
    }

    /// Returns the payment deadline; `None` if the units were never committed.
    pub const fn pay_deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Pending => None,
            Self::AwaitingPayment { pay_deadline }
            | Self::Paying { pay_deadline }
            | Self::Paid { pay_deadline }
            | Self::Fulfilled { pay_deadline, .. }
            | Self::Expired { pay_deadline } => Some(*pay_deadline),
            Self::Cancelled { pay_deadline } => *pay_deadline,
            Self::Refunding(refund_origin) | Self::Refunded(refund_origin) => refund_origin.pay_deadline,
        }
    }

    /// Returns when the goods were granted; `None` if they never were.
    pub const fn fulfill_time(&self) -> Option<Timestamp> {
        match self {
            Self::Fulfilled { at, .. } => Some(*at),
            Self::Refunding(refund_origin) | Self::Refunded(refund_origin) => refund_origin.fulfill_time,
            _ => None,
        }
    }

    /// Returns whether the state is terminal, so that watchers stop. A late payment or a refund may still change it.
    pub const fn is_terminal(&self) -> bool {
        self.name().is_terminal()
    }

    /// Returns whether the order has returned its coupon, or is about to by a message in flight. A coupon that is still
    /// held for it is returned then.
    pub const fn has_returned_coupon(&self) -> bool {
        match self {
            Self::Expired { .. } | Self::Cancelled { .. } | Self::Refunded(_) => true,
            Self::Refunding(refund_origin) => refund_origin.fulfill_time.is_none(),
            Self::Pending
            | Self::AwaitingPayment { .. }
            | Self::Paying { .. }
            | Self::Paid { .. }
            | Self::Fulfilled { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for name in StateName::ALL {
            assert_eq!(StateName::parse(name.as_str()), Some(name));
            assert!(name.stored_names().all(|stored| StateName::parse(stored) == Some(name)), "{name:?}");
        }
        assert!(StateName::Cancelled.stored_names().any(|stored| stored == "REJECTED"));
        assert_eq!(StateName::parse("pending"), None);
        assert_eq!(StateName::parse("REJECTED"), Some(StateName::Cancelled));
    }
}
