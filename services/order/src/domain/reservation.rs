//! The units that inventory has reserved for an order.

use super::Line;
use stampede_vocab::Timestamp;

/// Reserved units: the lines with their prices and gifts as of the reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The lines, in the order of the request.
    pub lines: Vec<Line>,
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
    /// Identifies this reservation when it is withdrawn; `None` if the order is known to be written.
    pub request_time: Option<Timestamp>,
    /// Whether the ledger has committed the units. An inventory of an earlier release answers before the commit, and
    /// reports the commit by message.
    pub is_committed: bool,
}
