//! What the order service says of an order whose units are on hold.

use std::time::Duration;

/// Whether an order still needs its hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderLiveness {
    /// It was never written so far.
    Unwritten,
    /// The ledger is being asked about it, or has answered.
    Alive,
    /// It has ended without units.
    Ended,
}

impl OrderLiveness {
    /// Whether a hold of this age, not in the ledger, goes back. While an order may still be written its hold stays:
    /// for at least `unwritten_age`, which must be more than the time in which an order may be written.
    pub fn is_orphan(self, age: Duration, unwritten_age: Duration) -> bool {
        match self {
            Self::Unwritten => age >= unwritten_age,
            Self::Alive => false,
            Self::Ended => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_goes_back_once_its_order_has_ended_or_can_no_longer_be_written() {
        let (young, limit, old) = (Duration::from_secs(14), Duration::from_secs(15), Duration::from_secs(3_600));
        assert!(!OrderLiveness::Unwritten.is_orphan(young, limit));
        assert!(OrderLiveness::Unwritten.is_orphan(limit, limit));
        assert!(!OrderLiveness::Alive.is_orphan(old, limit));
        assert!(OrderLiveness::Ended.is_orphan(young, limit));
    }
}
