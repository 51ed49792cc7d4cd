//! Data that goes from MySQL to Redis: the items of an event, and copies of the ledger.

use super::place;
use crate::Args;
use stampede_vocab::{EventId, ItemId, Money, Timestamp, UserId};

/// An event to be staged, with all of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// Event.
    pub event_id: EventId,
    /// Its version; one older than the staged one changes nothing while that is ready.
    pub event_version: i64,
    /// Reservations are taken from here on ...
    pub open_time: Timestamp,
    /// ... until before here.
    pub close_time: Timestamp,
    /// When Redis may forget all of it, in whole milliseconds: what was lost by then need not be rebuilt.
    pub expires_at: Timestamp,
    /// Arrivals are counted on from this at least: 0 for an event of which nothing was lost.
    pub arrivals_at_least: i64,
    /// The run of the server on which the event was compared with the ledger, by a snapshot.
    pub compared_on: String,
    /// Whether that snapshot had it as compared on that run already. If it is not any more, it was lost or distrusted
    /// since, and is not staged.
    pub was_compared: bool,
    /// Every item of the event.
    pub items: Vec<StagedItem>,
}

/// An item as it is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedItem {
    /// Item.
    pub item_id: ItemId,
    /// Units there are to sell.
    pub total_units: i32,
    /// Units that one buyer may have.
    pub limit_per_buyer: i32,
    /// Price of one unit.
    pub unit_price: Money,
    /// Gifts there are.
    pub gift_total_units: i32,
    /// Its committed units and gifts.
    pub ledger: LedgerUnits,
}

/// The committed units and gifts of an item, as of one version of its stock row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerUnits {
    /// Units.
    pub committed_units: i32,
    /// Gifts.
    pub gift_committed_units: i32,
    /// Version of the row: it grows by one with each change of the units.
    pub version: i64,
}

/// A copy of the ledger for one item: its units, and those of some buyers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCopy {
    /// Item.
    pub item_id: ItemId,
    /// Its units.
    pub ledger: LedgerUnits,
    /// The first version of its row of which this copy has the buyers; those from here to the version of `ledger` are
    /// all in it. Beyond that version for a copy that has some buyers as they are, and no change as a whole.
    pub first_version: i64,
    /// Units that each of these buyers has in the ledger, read at that version or later; 0 for one who had some.
    pub buyers: Vec<(UserId, i32)>,
    /// Whether every buyer that the item ever had is copied, here or by earlier calls with the same version.
    pub all_buyers: bool,
}

impl Staging {
    pub(super) fn args(&self) -> Args {
        let mut args = Args::new()
            .with(self.event_version)
            .with(self.open_time.micros())
            .with(self.close_time.micros())
            .with(self.expires_at.micros() / 1_000)
            .with(self.arrivals_at_least)
            .with(self.compared_on.as_str())
            .with(u8::from(self.was_compared));
        for item in &self.items {
            item.push_to(&mut args);
        }
        args
    }
}

impl StagedItem {
    fn push_to(&self, args: &mut Args) {
        args.push(self.item_id.to_string());
        args.push(self.total_units);
        args.push(self.limit_per_buyer);
        args.push(self.unit_price.minor_units);
        args.push(self.unit_price.currency.as_str());
        args.push(self.gift_total_units);
        self.ledger.push_to(args);
    }
}

impl LedgerUnits {
    fn push_to(self, args: &mut Args) {
        args.push(self.committed_units);
        args.push(self.gift_committed_units);
        args.push(self.version);
    }
}

impl LedgerCopy {
    pub(super) fn push_to(&self, args: &mut Args, items: &[ItemId]) {
        args.push(place(items, self.item_id));
        args.push(self.first_version);
        self.ledger.push_to(args);
        args.push(u8::from(self.all_buyers));
        args.push(self.buyers.len());
        for (user, units) in &self.buyers {
            args.push(user.to_string());
            args.push(*units);
        }
    }
}
