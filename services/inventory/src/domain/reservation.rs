//! A granted reservation, and the ledger's answer to it.

use crate::domain::{Entry, OrderedLine, Titles, ledger::EntryState};
use stampede_vocab::{EventId, Fingerprint, ItemId, Money, OrderId, Timestamp, UserId};
use std::sync::Arc;

/// Units that the script has granted to an order, to be committed before the caller is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    /// Event of all lines.
    pub event_id: EventId,
    pub fingerprint: Fingerprint,
    /// Place of arrival in the event.
    pub arrival: i64,
    /// When it was granted, by the clock of Redis: the window is checked as of this time.
    pub granted_at: Timestamp,
    /// Unique by item.
    pub lines: Vec<OrderedLine>,
    /// Whether nothing was granted because the order was found in the ledger.
    pub is_repeat: bool,
}

impl Grant {
    /// Returns whether one of its lines is of this item.
    pub fn names(&self, item_id: ItemId) -> bool {
        self.lines.iter().any(|line| line.item_id == item_id)
    }
}

/// The answer of the ledger to one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReservationOutcome {
    /// The units are in the ledger.
    Reserved(ReservedUnits),
    /// Nothing is taken.
    Refused(Refusal),
}

/// The committed units of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedUnits {
    /// The lines, ordered as requested.
    pub lines: Vec<OrderedLine>,
    /// Place of arrival in the event.
    pub arrival: i64,
    pub committed_at: Timestamp,
    /// Whether this call committed them; false for a repeat.
    pub is_new: bool,
}

/// Price and titles of the item of a line, as staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub unit_price: Money,
    /// Shared by the orders of a batch.
    pub titles: Arc<Titles>,
}

/// Why nothing is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// Item that was refused; `None` if the event or the order was.
    pub item_id: Option<ItemId>,
    /// Units that are left, or that the limit still allows; 0 for other reasons.
    pub allowed_units: i32,
}

/// Reasons of refusals, by the script or by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The order has or had units for a request with another body.
    RequestIdReused,
    /// The order was written, and has ended and given its units back.
    Released,
    /// No stock was ever staged for the event.
    EventNotFound,
    EventNotOpen,
    EventClosed,
    /// The stock is being staged or rebuilt.
    NotReady,
    /// The event does not offer the item.
    ItemNotFound,
    /// The lines are of more than one currency.
    CurrencyMismatch,
    /// The buyer would have more than the limit.
    LimitReached,
    /// Fewer are left than are asked for.
    SoldOut,
}

impl Refusal {
    /// Returns a refusal of the event or the whole order.
    pub const fn of_order(reason: RefusalReason) -> Self {
        Self { reason, item_id: None, allowed_units: 0 }
    }
}

impl ReservationOutcome {
    /// Returns the answer to a repeat from the rows in the ledger.
    pub(super) fn of_entries(grant: &Grant, entries: &[Entry]) -> Self {
        let Some(first) = entries.first() else { return Self::Refused(Refusal::of_order(RefusalReason::Released)) };
        if first.fingerprint.is_some_and(|fingerprint| fingerprint != grant.fingerprint) {
            return Self::Refused(Refusal::of_order(RefusalReason::RequestIdReused));
        }
        let EntryState::Committed { at: committed_at } = first.state else {
            return Self::Refused(Refusal::of_order(RefusalReason::Released));
        };
        let line = |wanted: &OrderedLine| {
            let entry = entries.iter().find(|entry| entry.line.item_id == wanted.item_id);
            entry.map(|entry| entry.line)
        };
        match grant.lines.iter().map(line).collect::<Option<Vec<_>>>() {
            Some(lines) => Self::Reserved(ReservedUnits { lines, arrival: first.arrival, committed_at, is_new: false }),
            // A row of an earlier release without a fingerprint, for other items.
            None => Self::Refused(Refusal::of_order(RefusalReason::RequestIdReused)),
        }
    }
}
