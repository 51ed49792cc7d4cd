//! What a buyer or an operator asks for when they end an order.

use stampede_vocab::{RequestId, UserId};

/// How a person ends an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndVerb {
    /// The buyer cancels it before it is paid.
    Cancel,
    /// An operator gives the money back.
    Refund,
}

impl EndVerb {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "CANCEL",
            Self::Refund => "REFUND",
        }
    }

    /// Reads what [`EndVerb::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cancel, Self::Refund].into_iter().find(|verb| verb.as_str() == text)
    }
}

/// An end that was asked for and came. An order that ends by itself has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRequest {
    /// What was asked for.
    pub verb: EndVerb,
    /// Who asked.
    pub by: UserId,
    /// Their own name for the request.
    pub id: RequestId,
}
