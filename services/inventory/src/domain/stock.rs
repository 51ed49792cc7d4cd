//! The stock of an item in the ledger, and as callers see it.

use crate::domain::{ShelfItem, Window};
use stampede_vocab::{EventId, ItemId, Timestamp};
use std::{cmp::Ordering, time::Duration};

/// How long after its closing Redis keeps an event. Later the ledger alone answers. It is far longer than the event is
/// compared and its holds are swept.
const KEPT_AFTER_CLOSING: Duration = Duration::from_secs(24 * 3_600);

/// An item: its offer and its committed units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub event_id: EventId,
    /// Version of the event that staged it.
    pub event_version: i64,
    pub window: Window,
    pub shelf: ShelfItem,
    pub committed: Committed,
    /// Floor of the next places of arrival in the event; `None` before it was first staged in Redis.
    pub arrivals_floor: Option<i64>,
    /// The grant with the latest place of arrival that the ledger has committed; `None` before the first.
    pub last_grant: Option<LastGrant>,
    /// Whether each change of the committed units has its version in the ledger, so that changes since a version can be
    /// found.
    pub is_numbered: bool,
}

impl Item {
    /// Returns whether none of it was ever sold and its arrivals floor was never raised: it may not have been in Redis
    /// yet.
    pub fn is_new(&self) -> bool {
        self.committed.version == 0 && self.arrivals_floor.unwrap_or(0) == 0
    }

    /// Returns when Redis may forget its event, in whole milliseconds, by which Redis counts.
    pub fn kept_until(&self) -> Timestamp {
        Timestamp::from_micros(self.window.close_time.plus(KEPT_AFTER_CLOSING).micros() / 1_000 * 1_000)
    }

    pub fn id(&self) -> ItemId {
        self.shelf.item_id
    }

    /// Returns the units that are not committed.
    pub const fn left_units(&self) -> i32 {
        self.shelf.total_units - self.committed.units
    }

    /// Returns the gifts that are not committed.
    pub const fn left_gift_units(&self) -> i32 {
        self.shelf.gift_total_units - self.committed.gift_units
    }
}

/// Units of an item that the ledger has committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    pub units: i32,
    pub gift_units: i32,
    /// Incremented by each change of the units.
    pub version: i64,
}

/// The latest place of arrival of an item in the ledger, and when Redis granted it. Redis gives places in the order of
/// time, but commits overtake one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastGrant {
    pub arrival: i64,
    pub granted_at: Timestamp,
}

impl LastGrant {
    /// Returns whether another order cannot have been granted this place at this time, unless Redis was rolled back to
    /// an earlier copy: it had given the place before.
    pub fn rules_out(&self, arrival: i64, granted_at: Timestamp) -> bool {
        match arrival.cmp(&self.arrival) {
            Ordering::Less => granted_at > self.granted_at,
            Ordering::Equal => granted_at != self.granted_at,
            Ordering::Greater => false,
        }
    }
}

/// The stock of an event as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockView {
    /// Whether the event has closed, so that nothing more can be bought.
    pub closed: bool,
    pub levels: Vec<StockLevel>,
}

/// The stock of an item as callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockLevel {
    pub item_id: ItemId,
    pub total_units: i32,
    /// Units that can still be bought.
    pub left_units: i32,
    /// Units in the ledger.
    pub committed_units: i32,
    pub held_units: i32,
    pub left_gift_units: i32,
}

impl StockLevel {
    /// Returns the stock by the ledger alone, for when nothing can be on hold any more.
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
