//! The units that inventory has set aside for an order.

use super::Line;
use stampede_vocab::Timestamp;

/// A granted hold: the lines as priced and gifted at that instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The lines, in the sequence in which the first request for them had them.
    pub lines: Vec<Line>,
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
    /// When it was last asked for, by the clock of inventory: names the hold when it is given back.
    pub held_at: Timestamp,
}
