//! The messages that the ledger publishes.

use super::OrderedLine;
use stampede_vocab::{ItemId, OrderId};

/// Why the ledger does not commit an order again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// Not enough units are left.
    SoldOut,
    /// The buyer would have more than the limit.
    LimitReached,
}

impl RejectReason {
    /// As the ledger keeps it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "SOLD_OUT",
            Self::LimitReached => "LIMIT_REACHED",
        }
    }

    /// The reason of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::SoldOut, Self::LimitReached].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// The answer of the ledger to an order that was paid late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All units are committed.
    Committed {
        /// What is taken: a gift that had gone to somebody else is missing.
        lines: Vec<OrderedLine>,
    },
    /// Nothing is committed.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Item at fault.
        item_id: ItemId,
    },
    /// Nothing is committed any more: it was, until the money was given back.
    GivenBack {
        /// One of its items.
        item_id: ItemId,
    },
}

/// One message of the service: the answer to one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    pub order_id: OrderId,
    pub answer: Answer,
    /// Trace of the message that asked.
    pub traceparent: Option<String>,
}
