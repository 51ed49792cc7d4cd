//! One item's stock as the ledger has it, and as it is shown.

use crate::domain::{ShelfItem, Window};
use stampede_vocab::{EventId, ItemId};

/// One item: how it is on the shelf, and what the ledger has committed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Event that offers it.
    pub event_id: EventId,
    /// Version of the event by which it was put on the shelf.
    pub event_version: i64,
    /// When it may be bought.
    pub window: Window,
    /// What there is, for how much, and for whom.
    pub shelf: ShelfItem,
    /// What the ledger has committed.
    pub committed: Committed,
    /// Places of arrival in the event go on from here at least; none before it was put into Redis for the first time.
    pub arrivals_floor: Option<i64>,
    /// Whether each change of the committed units has its version in the ledger, so that what was changed since a
    /// version can be found.
    pub is_numbered: bool,
}

impl Item {
    /// Whether nothing was ever sold of it, and its places of arrival were never raised: it may not have been in Redis
    /// yet.
    pub fn is_new(&self) -> bool {
        self.committed.version == 0 && self.arrivals_floor.unwrap_or(0) == 0
    }

    pub fn id(&self) -> ItemId {
        self.shelf.item_id
    }

    /// Units that the ledger has not committed.
    pub const fn left_units(&self) -> i32 {
        self.shelf.total_units - self.committed.units
    }

    /// Gifts that the ledger has not committed.
    pub const fn left_gift_units(&self) -> i32 {
        self.shelf.gift_total_units - self.committed.gift_units
    }
}

/// What the ledger has committed of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    pub units: i32,
    pub gift_units: i32,
    /// Grows by one with each change of the units.
    pub version: i64,
}

/// What is shown of an event's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockView {
    /// Whether the event has closed, so that nothing more can be bought.
    pub closed: bool,
    /// Every item.
    pub levels: Vec<StockLevel>,
}

/// What is shown of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockLevel {
    pub item_id: ItemId,
    /// Units there are to sell.
    pub total_units: i32,
    /// Units that can still be bought.
    pub left_units: i32,
    /// Units in the ledger.
    pub committed_units: i32,
    /// Units on hold.
    pub held_units: i32,
    /// Gifts that are left.
    pub left_gift_units: i32,
}

impl StockLevel {
    /// As the ledger alone has it, once nothing can be on hold any more.
    pub fn of_ledger(item: &Item) -> Self {
        Self {
            item_id: item.id(),
            total_units: item.shelf.total_units,
            left_units: item.left_units(),
            committed_units: item.committed.units,
            held_units: 0,
            left_gift_units: item.left_gift_units(),
        }
    }
}
