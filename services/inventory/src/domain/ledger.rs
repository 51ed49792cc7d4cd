//! The ledger as a value: a batch of messages is applied to what was read under lock, and yields what to write.

use crate::domain::{Answer, Committed, Item, RejectReason};
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a message asks of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Commit the units of a new order.
    Commit(OrderedUnits),
    /// Commit the units of an order again that gave them back.
    CommitAgain(OrderedUnits),
    /// Give back whatever the order has.
    Release(OrderId),
}

/// What an order wants committed, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedUnits {
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    /// Event that all lines are of.
    pub event_id: EventId,
    /// Order of arrival in the event.
    pub arrival: i64,
    /// The lines, no item twice.
    pub lines: Vec<OrderedLine>,
}

/// Units of one item in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderedLine {
    pub item_id: ItemId,
    pub units: i32,
    /// Gifts that were promised with them.
    pub gift_units: i32,
}

/// One row: the units of one item in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    pub event_id: EventId,
    /// Order of arrival in the event; 0 if it is not known.
    pub arrival: i64,
    /// What was bought.
    pub line: OrderedLine,
    /// Taken or given back.
    pub state: EntryState,
}

/// Whether the units of a row are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Taken.
    Committed {
        /// Since when.
        at: Timestamp,
    },
    /// Given back.
    Released {
        /// When they were last taken.
        committed_at: Timestamp,
        /// When they were given back.
        released_at: Timestamp,
    },
}

impl Entry {
    /// Whether its units are taken.
    pub fn is_committed(&self) -> bool {
        matches!(self.state, EntryState::Committed { .. })
    }
}

/// Units that buyers have in the ledger, by item and buyer.
pub type Buyers = HashMap<(ItemId, UserId), i32>;

/// What was read under the lock of the items, and what the batch has done to it so far.
#[derive(Debug)]
pub struct LedgerBatch {
    items: BTreeMap<ItemId, Item>,
    before: BTreeMap<ItemId, Committed>,
    entries: BTreeMap<OrderId, Vec<Entry>>,
    buyers: Buyers,
    changed_orders: BTreeSet<OrderId>,
    changed_buyers: BTreeSet<(ItemId, UserId)>,
}

/// What the batch has changed, to be written in the same transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Each item that changed.
    pub items: Vec<ItemChange>,
    /// Each row that is new or changed, as it is at the end.
    pub entries: Vec<Entry>,
}

/// What the batch has done to one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemChange {
    pub item_id: ItemId,
    /// Event that offers it.
    pub event_id: EventId,
    /// Units taken; negative if more came back.
    pub units: i32,
    /// Gifts taken; negative if more came back.
    pub gift_units: i32,
    /// What the ledger has committed of it at the end.
    pub after: Committed,
    /// What each buyer whose units changed has of it at the end.
    pub buyers: Vec<(UserId, i32)>,
}

impl LedgerBatch {
    /// The batch over these items, with the rows of all orders of the batch and what their buyers have.
    pub fn new(items: Vec<Item>, entries: Vec<Entry>, buyers: Buyers) -> Self {
        let mut by_order: BTreeMap<OrderId, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            by_order.entry(entry.order_id).or_default().push(entry);
        }
        Self {
            before: items.iter().map(|item| (item.id(), item.committed)).collect(),
            items: items.into_iter().map(|item| (item.id(), item)).collect(),
            entries: by_order,
            buyers,
            changed_orders: BTreeSet::new(),
            changed_buyers: BTreeSet::new(),
        }
    }

    /// Does what one message asks. An answer is given to every order that asks for units, unless it gave them back
    /// before: then the message is an old one.
    pub fn apply(&mut self, ask: &Ask, now: Timestamp) -> Option<Answer> {
        match ask {
            Ask::Commit(order) if self.entries.contains_key(&order.order_id) => {
                self.has_units(order.order_id).then_some(Answer::Committed)
            }
            Ask::CommitAgain(order) if self.has_units(order.order_id) => Some(Answer::Committed),
            Ask::Commit(order) | Ask::CommitAgain(order) => Some(self.commit(order, now)),
            Ask::Release(order_id) => {
                self.release(*order_id, now);
                None
            }
        }
    }

    /// What is to be written.
    pub fn changes(self) -> Changes {
        let mut buyers: BTreeMap<ItemId, Vec<(UserId, i32)>> = BTreeMap::new();
        for (item_id, user_id) in &self.changed_buyers {
            let units = self.buyers.get(&(*item_id, *user_id)).copied().unwrap_or(0);
            buyers.entry(*item_id).or_default().push((*user_id, units));
        }
        let items = buyers.into_iter().map(|(item_id, buyers)| self.item_change(item_id, buyers)).collect();
        let entries = self.changed_orders.iter().flat_map(|order_id| self.entries[order_id].iter().copied()).collect();
        Changes { items, entries }
    }

    fn item_change(&self, item_id: ItemId, buyers: Vec<(UserId, i32)>) -> ItemChange {
        let (item, before) = (&self.items[&item_id], self.before[&item_id]);
        let after = Committed { version: before.version + 1, ..item.committed };
        let (units, gift_units) = (after.units - before.units, after.gift_units - before.gift_units);
        ItemChange { item_id, event_id: item.event_id, units, gift_units, after, buyers }
    }

    fn has_units(&self, order_id: OrderId) -> bool {
        self.entries.get(&order_id).is_some_and(|entries| entries.iter().all(Entry::is_committed))
    }

    fn commit(&mut self, order: &OrderedUnits, now: Timestamp) -> Answer {
        if let Some((reason, item_id)) = order.lines.iter().find_map(|line| self.objection(order.user_id, line)) {
            return Answer::Rejected { reason, item_id };
        }
        let arrival = self.entries.get(&order.order_id).map_or(order.arrival, |entries| entries[0].arrival);
        let state = EntryState::Committed { at: now };
        let entry = |line: &OrderedLine| Entry {
            order_id: order.order_id,
            user_id: order.user_id,
            event_id: order.event_id,
            arrival,
            line: *line,
            state,
        };
        self.entries.insert(order.order_id, order.lines.iter().map(entry).collect());
        self.changed_orders.insert(order.order_id);
        for line in &order.lines {
            self.take(order.user_id, *line, 1);
        }
        Answer::Committed
    }

    /// Why the line can't be committed. An item that is not in the stock has no units.
    fn objection(&self, user_id: UserId, line: &OrderedLine) -> Option<(RejectReason, ItemId)> {
        let Some(item) = self.items.get(&line.item_id) else { return Some((RejectReason::SoldOut, line.item_id)) };
        let has = self.buyers.get(&(line.item_id, user_id)).copied().unwrap_or(0);
        let left = item.shelf.total_units - item.committed.units;
        let left_gifts = item.shelf.gift_total_units - item.committed.gift_units;
        if line.units > item.shelf.limit_per_buyer - has {
            Some((RejectReason::LimitReached, line.item_id))
        } else if line.units > left || line.gift_units > left_gifts {
            Some((RejectReason::SoldOut, line.item_id))
        } else {
            None
        }
    }

    fn release(&mut self, order_id: OrderId, now: Timestamp) {
        let mut released = Vec::new();
        for entry in self.entries.get_mut(&order_id).into_iter().flatten() {
            if let EntryState::Committed { at } = entry.state {
                entry.state = EntryState::Released { committed_at: at, released_at: now };
                released.push((entry.user_id, entry.line));
            }
        }
        for (user_id, line) in released {
            self.changed_orders.insert(order_id);
            self.take(user_id, line, -1);
        }
    }

    /// Moves the units of a line into the ledger (`sign` 1) or out of it (-1).
    fn take(&mut self, user_id: UserId, line: OrderedLine, sign: i32) {
        let item = self.items.get_mut(&line.item_id).expect("the items of every row of the batch were read");
        item.committed.units += sign * line.units;
        item.committed.gift_units += sign * line.gift_units;
        *self.buyers.entry((line.item_id, user_id)).or_insert(0) += sign * line.units;
        self.changed_buyers.insert((line.item_id, user_id));
    }
}

#[cfg(test)]
pub(super) mod tests;
