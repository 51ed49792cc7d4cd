//! The messages that the service publishes.

use super::OrderedLine;
use stampede_vocab::{ItemId, OrderId};

/// Why an order that was paid late was not committed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// Fewer are left than were ordered, or the ledger does not have the item.
    SoldOut,
    /// The buyer would have more than the limit.
    LimitReached,
}

impl RejectReason {
    /// Returns the name that the ledger stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "SOLD_OUT",
            Self::LimitReached => "LIMIT_REACHED",
        }
    }

    /// Returns the reason of this name; `None` if there is none.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::SoldOut, Self::LimitReached].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// The answer of the ledger to an order that was paid late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageBody {
    /// All units are committed.
    Committed {
        /// The committed lines, without gifts that another buyer got meanwhile.
        lines: Vec<OrderedLine>,
    },
    /// Nothing is committed.
    Rejected { reason: RejectReason, item_id: ItemId },
    /// Nothing is committed any more: the order was refunded and gave its units back.
    GivenBack {
        /// One of its items.
        item_id: ItemId,
    },
}

/// A message: the answer to one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    pub order_id: OrderId,
    pub body: MessageBody,
    /// Trace of the message that is answered.
    pub traceparent: Option<String>,
}
