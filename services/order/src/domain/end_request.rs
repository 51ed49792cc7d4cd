//! Requests to end an order, by its buyer or an operator.

use stampede_vocab::{RequestId, UserId};

/// The kind of a request that ends an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndVerb {
    /// The buyer or an operator cancels it before it is paid.
    Cancel,
    /// An operator refunds it.
    Refund,
}

impl EndVerb {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "CANCEL",
            Self::Refund => "REFUND",
        }
    }

    /// Parses a name that [`EndVerb::as_str`] returned.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cancel, Self::Refund].into_iter().find(|verb| verb.as_str() == text)
    }
}

/// A request that has ended an order. An order that a sweep has ended has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRequest {
    pub verb: EndVerb,
    pub by: UserId,
    /// The caller's idempotency key.
    pub id: RequestId,
}
