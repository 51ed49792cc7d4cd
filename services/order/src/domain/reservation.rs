//! The units that inventory has set aside for an order.

use super::{Draft, Line};

/// A granted hold: the lines as priced and gifted at that instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The lines, as asked for.
    pub lines: Vec<Line>,
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
}

impl Hold {
    /// Whether it is of what was asked for. A hold of an earlier request under the same id, whose order was never
    /// written, is of something else.
    pub fn covers(&self, draft: &Draft) -> bool {
        let held = self.lines.iter().map(|line| (line.item, line.units));
        held.eq(draft.lines.iter().map(|line| (line.item, line.units)))
    }
}
