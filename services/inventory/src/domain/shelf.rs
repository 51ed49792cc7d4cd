//! The offer of an event: its window and its items. Valid by construction.

use crate::domain::{RefusalReason, Titles};
use stampede_vocab::{EventId, InvalidField, ItemId, Money, Timestamp};
use std::{collections::HashSet, time::Duration};

/// How long after the close the ledger still decides to commit what was granted inside of the window: a second longer
/// than `Reserve` waits for a commit. The writes and the COMMIT follow the decision, within the work time-out of the
/// database; if the process stands still in between, until the database ends its session.
///
/// It bounds no repeat of a request whose units are committed, and whose order is not known to be written: its order
/// may be written later, and the units are kept for it as long as for the first request, counted from the repeat.
pub const COMMIT_GRACE: Duration = Duration::from_millis(3_500);

/// When an event takes reservations: from `open_time` until before `close_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Inclusive.
    pub open_time: Timestamp,
    /// Exclusive. A cancelled event may close before it opens.
    pub close_time: Timestamp,
}

/// An item as an event offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfItem {
    pub item_id: ItemId,
    pub total_units: i32,
    pub limit_per_buyer: i32,
    /// 0 for none.
    pub gift_total_units: i32,
    pub unit_price: Money,
}

/// An item of an event with its titles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    pub item: ShelfItem,
    /// Empty titles leave the stored ones as they are.
    pub titles: Titles,
}

/// The window and all items of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    pub event_id: EventId,
    /// The newest wins.
    pub event_version: i64,
    /// When it takes reservations.
    pub window: Window,
    /// Unique by item id.
    pub items: Vec<Offered>,
}

/// A cancellation: nothing more may be sold of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    pub event_id: EventId,
    pub event_version: i64,
    pub cancel_time: Timestamp,
}

impl Window {
    /// Returns a window. Fails unless it opens before it closes.
    pub fn new(open_time: Timestamp, close_time: Timestamp) -> Result<Self, InvalidField> {
        if open_time < close_time {
            Ok(Self { open_time, close_time })
        } else {
            Err(InvalidField::new("close_time", "must be later than open_time"))
        }
    }

    /// Returns the window of an event that was cancelled at this time.
    #[must_use]
    pub fn ended_at(self, cancel_time: Timestamp) -> Self {
        Self { close_time: self.close_time.min(cancel_time), ..self }
    }

    /// Returns why a grant may not be committed at `now`; `None` if it may. The window is checked as of the grant, and
    /// is closed for every grant once [`COMMIT_GRACE`] is over.
    pub fn refusal_of(&self, granted_at: Timestamp, now: Timestamp) -> Option<RefusalReason> {
        if granted_at >= self.close_time || now >= self.close_time.plus(COMMIT_GRACE) {
            Some(RefusalReason::EventClosed)
        } else if granted_at < self.open_time {
            Some(RefusalReason::EventNotOpen)
        } else {
            None
        }
    }
}

impl ShelfItem {
    /// Returns the item. Fails if it has no units, if its limit is below 1, or if its gifts or its price are negative.
    pub fn checked(self) -> Result<Self, InvalidField> {
        at_least("total_units", self.total_units.into(), 1)?;
        at_least("limit_per_buyer", self.limit_per_buyer.into(), 1)?;
        at_least("gift_total_units", self.gift_total_units.into(), 0)?;
        at_least("unit_price.minor_units", self.unit_price.minor_units, 0)?;
        Ok(self)
    }
}

impl Shelf {
    /// Returns the offer of an event. Fails without items, with an item twice, or with a version below 1.
    pub fn new(
        event_id: EventId,
        event_version: i64,
        window: Window,
        items: Vec<Offered>,
    ) -> Result<Self, InvalidField> {
        at_least("event_version", event_version, 1)?;
        if items.is_empty() {
            return Err(InvalidField::new("items", "must be at least one"));
        }
        let mut seen = HashSet::with_capacity(items.len());
        match items.iter().position(|offered| !seen.insert(offered.item.item_id)) {
            Some(index) => Err(InvalidField::new(format!("items[{index}].item_id"), "must not be there twice")),
            None => Ok(Self { event_id, event_version, window, items }),
        }
    }
}

fn at_least(field: &str, value: i64, least: i64) -> Result<(), InvalidField> {
    if value >= least {
        Ok(())
    } else {
        Err(InvalidField::new(field, format!("must be at least {least}, but is {value}")))
    }
}
