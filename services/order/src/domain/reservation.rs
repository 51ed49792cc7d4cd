//! The units that inventory has taken for an order.

use super::Line;
use stampede_vocab::Timestamp;

/// Units that are taken: the lines as priced and gifted at that instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The lines, in the sequence in which they were asked for.
    pub lines: Vec<Line>,
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
    /// Names this request when the units are given back; none if the order is known to be written.
    pub asked_at: Option<Timestamp>,
    /// Whether the ledger has committed them. An inventory of an earlier release answers before, and the ledger then
    /// answers by message.
    pub is_committed: bool,
}
