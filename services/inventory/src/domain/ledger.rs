//! The ledger as a value: a batch of messages is applied to what was read under lock, and yields what to write.

use crate::domain::{
    Answer, Committed, Grant, Item, Refusal, RefusalReason, RejectReason, ReservationOutcome, ReservedUnits,
};
use stampede_vocab::{EventId, Fingerprint, ItemId, Money, OrderId, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The request of a message to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Commit the units of an order that was paid late, which gave them back.
    CommitAgain(OrderedUnits),
    /// Give back what an order has that ended without a payment.
    ReleaseUnpaid(OrderId),
    /// Give back whatever the order has.
    Release(OrderId),
}

impl Ask {
    /// The order that asks.
    pub const fn order_id(&self) -> OrderId {
        match self {
            Self::CommitAgain(order) => order.order_id,
            Self::ReleaseUnpaid(order_id) | Self::Release(order_id) => *order_id,
        }
    }
}

/// The units that an order wants committed, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedUnits {
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    /// Event that all lines are of.
    pub event_id: EventId,
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
    /// When it was granted, by the clock of Redis; none in a row of before the ledger kept it, and in one whose order
    /// was never written.
    pub granted_at: Option<Timestamp>,
    /// What the buyer asked for; none in a row of before the ledger kept it.
    pub fingerprint: Option<Fingerprint>,
    /// What was bought.
    pub line: OrderedLine,
    /// Taken or given back.
    pub state: EntryState,
    /// The answer to its order when it was paid late; none if it never was.
    pub late_answer: Option<LateAnswer>,
}

/// The answer to an order that was paid late: given once, whatever is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateAnswer {
    /// Its units were committed again.
    Committed,
    /// They were not, for this row.
    Rejected(RejectReason),
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

    /// Whether its units went back because its order was never written, so that the order may be placed anew.
    pub fn is_void(&self) -> bool {
        !self.is_committed() && self.granted_at.is_none() && self.fingerprint.is_some()
    }
}

/// Units that buyers have in the ledger, by item and buyer.
pub type Buyers = HashMap<(ItemId, UserId), i32>;

/// The rows that were read under the lock of the items, with the changes of the batch so far.
#[derive(Debug)]
pub struct LedgerBatch {
    items: BTreeMap<ItemId, Item>,
    before: BTreeMap<ItemId, Committed>,
    entries: BTreeMap<OrderId, Vec<Entry>>,
    /// The rows as they were read.
    read: BTreeMap<(OrderId, ItemId), Entry>,
    buyers: Buyers,
    changed_orders: BTreeSet<OrderId>,
    changed_buyers: BTreeSet<(ItemId, UserId)>,
    refused_buyers: BTreeSet<(ItemId, UserId)>,
}

/// The changes of the batch, to be written in the same transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Each item that changed.
    pub items: Vec<ItemChange>,
    /// What the ledger has of items and buyers that were granted what it refuses: Redis has something else.
    pub corrections: Vec<ItemChange>,
    /// Each row that is new or changed, as it is at the end.
    pub entries: Vec<Entry>,
}

/// The change of one item by the batch.
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
        let read = entries.iter().map(|entry| ((entry.order_id, entry.line.item_id), *entry)).collect();
        let mut by_order: BTreeMap<OrderId, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            by_order.entry(entry.order_id).or_default().push(entry);
        }
        Self {
            before: items.iter().map(|item| (item.id(), item.committed)).collect(),
            items: items.into_iter().map(|item| (item.id(), item)).collect(),
            entries: by_order,
            read,
            buyers,
            changed_orders: BTreeSet::new(),
            changed_buyers: BTreeSet::new(),
            refused_buyers: BTreeSet::new(),
        }
    }

    /// Items of rows that were read without their item, with the buyers of those rows. While there are any, the batch
    /// may give nothing back.
    pub fn items_missing(&self) -> BTreeSet<(ItemId, UserId)> {
        let is_missing = |entry: &&Entry| !self.items.contains_key(&entry.line.item_id);
        self.read.values().filter(is_missing).map(|entry| (entry.line.item_id, entry.user_id)).collect()
    }

    /// Does what one message asks. An answer is given to every order that asks for units.
    pub fn apply(&mut self, ask: &Ask, now: Timestamp) -> Option<Answer> {
        match ask {
            Ask::CommitAgain(order) => Some(self.answer_late(order, now)),
            Ask::ReleaseUnpaid(order_id) => {
                // What comes behind the payment is a repeat of what came before it.
                if self.late_answer(*order_id).is_none() {
                    self.release(*order_id, now);
                }
                None
            }
            Ask::Release(order_id) => {
                self.release(*order_id, now);
                None
            }
        }
    }

    /// Commits what the script has granted, all or nothing. An order that is in the ledger already is answered as it is
    /// there, to the request that it is there for. A gift that is gone is no reason to refuse the units.
    pub fn reserve(&mut self, grant: &Grant, now: Timestamp) -> ReservationOutcome {
        let known: Vec<Entry> = self.live_entries(grant.order_id).copied().collect();
        if !known.is_empty() {
            return ReservationOutcome::of_entries(grant, &known);
        }
        if grant.is_repeat {
            // Its units went back since it was seen: nothing was granted, so it is to be asked for anew.
            return ReservationOutcome::Refused(Refusal::of_order(RefusalReason::NotReady));
        }
        if let Some(refusal) = grant.lines.iter().find_map(|line| self.refusal(grant, line)) {
            let of_stock = |line: &&OrderedLine| self.items.contains_key(&line.item_id);
            let items = grant.lines.iter().filter(of_stock).map(|line| (line.item_id, grant.user_id));
            self.refused_buyers.extend(items);
            return ReservationOutcome::Refused(refusal);
        }
        let lines: Vec<OrderedLine> = grant.lines.iter().map(|line| self.with_gifts_left(*line)).collect();
        let entry = |line: &OrderedLine| Entry {
            order_id: grant.order_id,
            user_id: grant.user_id,
            event_id: grant.event_id,
            arrival: grant.arrival,
            granted_at: Some(grant.granted_at),
            fingerprint: Some(grant.fingerprint),
            line: *line,
            state: EntryState::Committed { at: now },
            late_answer: None,
        };
        self.put(grant.order_id, lines.iter().map(entry).collect());
        for line in &lines {
            self.take(grant.user_id, *line, 1);
        }
        ReservationOutcome::Reserved(ReservedUnits { lines, arrival: grant.arrival, committed_at: now, is_new: true })
    }

    /// The price of one unit of each of these lines, of items that were read.
    pub fn unit_prices(&self, lines: &[OrderedLine]) -> Vec<Money> {
        lines.iter().map(|line| self.items[&line.item_id].shelf.unit_price).collect()
    }

    /// Gives back the units of an order that was never written. Returns whether it had any.
    pub fn void(&mut self, order_id: OrderId, now: Timestamp) -> bool {
        let released = self.release(order_id, now);
        for entry in self.entries.get_mut(&order_id).into_iter().flatten().filter(|_| released) {
            entry.granted_at = None;
        }
        released
    }

    /// Returns what is to be written.
    pub fn changes(self) -> Changes {
        let mut buyers: BTreeMap<ItemId, Vec<(UserId, i32)>> = BTreeMap::new();
        for (item_id, user_id) in &self.changed_buyers {
            let units = self.buyers.get(&(*item_id, *user_id)).copied().unwrap_or(0);
            buyers.entry(*item_id).or_default().push((*user_id, units));
        }
        let items: Vec<_> = buyers.into_iter().map(|(item_id, buyers)| self.item_change(item_id, buyers)).collect();
        let entries = self.changed_orders.iter().flat_map(|order_id| &self.entries[order_id]);
        // A row of an item that this batch has not locked is as it was read, and not for us to write.
        let is_changed = |entry: &&Entry| self.read.get(&(entry.order_id, entry.line.item_id)) != Some(*entry);
        let entries = entries.filter(is_changed).copied().collect();
        Changes { items, corrections: self.corrections(), entries }
    }

    /// Buyers whose item has changed too are copied under its new version, which covers no change of theirs.
    fn corrections(&self) -> Vec<ItemChange> {
        let correction = |&(item_id, user_id): &(ItemId, UserId)| {
            let (item, before) = (&self.items[&item_id], self.before[&item_id]);
            let version =
                before.version + i64::from(self.changed_buyers.iter().any(|(changed, _)| *changed == item_id));
            let after = Committed { version, ..item.committed };
            let buyers = vec![(user_id, self.units_of(item_id, user_id))];
            ItemChange { item_id, event_id: item.event_id, units: 0, gift_units: 0, after, buyers }
        };
        self.refused_buyers.iter().map(correction).collect()
    }

    fn item_change(&self, item_id: ItemId, buyers: Vec<(UserId, i32)>) -> ItemChange {
        let (item, before) = (&self.items[&item_id], self.before[&item_id]);
        let after = Committed { version: before.version + 1, ..item.committed };
        let (units, gift_units) = (after.units - before.units, after.gift_units - before.gift_units);
        ItemChange { item_id, event_id: item.event_id, units, gift_units, after, buyers }
    }

    fn has_units(&self, order_id: OrderId) -> bool {
        let mut live = self.live_entries(order_id).peekable();
        live.peek().is_some() && live.all(Entry::is_committed)
    }

    /// The answer that the order has been given to its late payment, with the item of the row.
    fn late_answer(&self, order_id: OrderId) -> Option<(LateAnswer, ItemId)> {
        let answers = self.live_entries(order_id).filter_map(|entry| Some((entry.late_answer?, entry.line.item_id)));
        // The rows of an order are in no certain order.
        answers.min_by_key(|(_, item_id)| *item_id)
    }

    /// Answers a late payment as it was answered the first time, to the byte: the order may wait for it again. One that
    /// has given its units back since, because it was refunded, gets that as its answer.
    fn answer_late(&mut self, order: &OrderedUnits, now: Timestamp) -> Answer {
        match self.late_answer(order.order_id) {
            Some((LateAnswer::Rejected(reason), item_id)) => Answer::Rejected { reason, item_id },
            Some((LateAnswer::Committed, item_id)) if !self.has_units(order.order_id) => Answer::GivenBack { item_id },
            None if !self.has_units(order.order_id) => self.commit_again(order, now),
            // It has them, and from now on keeps them until it is refunded.
            Some((LateAnswer::Committed, _)) | None => {
                let late_answer = Some(LateAnswer::Committed);
                let rows: Vec<_> =
                    self.live_entries(order.order_id).map(|entry| Entry { late_answer, ..*entry }).collect();
                // In the order of the first answer, whatever that of the rows is.
                let of_item = |line: &OrderedLine| rows.iter().find(|row| row.line.item_id == line.item_id);
                let lines = order.lines.iter().filter_map(of_item).map(|row| row.line).collect();
                self.put(order.order_id, rows);
                Answer::Committed { lines }
            }
        }
    }

    /// A gift that went to somebody else meanwhile is no reason to refuse the units: the buyer gets them without it.
    fn commit_again(&mut self, order: &OrderedUnits, now: Timestamp) -> Answer {
        if let Some((reason, item_id)) = order.lines.iter().find_map(|line| self.objection(order.user_id, line)) {
            let item_id = self.note_rejection(order, (reason, item_id), now);
            return Answer::Rejected { reason, item_id };
        }
        let before = self.live_entries(order.order_id).next();
        let (arrival, granted_at, fingerprint) =
            before.map_or((0, None, None), |entry| (entry.arrival, entry.granted_at, entry.fingerprint));
        let lines: Vec<OrderedLine> = order.lines.iter().map(|line| self.with_gifts_left(*line)).collect();
        let entry = |line: &OrderedLine| Entry {
            order_id: order.order_id,
            user_id: order.user_id,
            event_id: order.event_id,
            arrival,
            granted_at,
            fingerprint,
            line: *line,
            state: EntryState::Committed { at: now },
            late_answer: Some(LateAnswer::Committed),
        };
        self.put(order.order_id, lines.iter().map(entry).collect());
        for line in &lines {
            self.take(order.user_id, *line, 1);
        }
        Answer::Committed { lines }
    }

    /// Notes the answer in the row of the item, so that a repeat takes no units that are free by then. An item that the
    /// ledger has never had for this order gets a row; if there is no such item at all, another row of the order keeps
    /// the answer. Returns the item of the row, which a repeat names too.
    fn note_rejection(
        &mut self,
        order: &OrderedUnits,
        (reason, item_id): (RejectReason, ItemId),
        now: Timestamp,
    ) -> ItemId {
        let late_answer = Some(LateAnswer::Rejected(reason));
        let known = self.live_entries(order.order_id).find(|entry| entry.line.item_id == item_id).copied();
        let other = self.live_entries(order.order_id).min_by_key(|entry| entry.line.item_id).copied();
        let line = order.lines.iter().find(|line| line.item_id == item_id && self.items.contains_key(&item_id));
        let new = |line: &OrderedLine| Entry {
            order_id: order.order_id,
            user_id: order.user_id,
            event_id: order.event_id,
            arrival: other.map_or(0, |entry| entry.arrival),
            granted_at: None,
            fingerprint: None,
            line: *line,
            state: EntryState::Released { committed_at: now, released_at: now },
            late_answer,
        };
        let row = known.or_else(|| line.map(new)).or(other).map(|entry| Entry { late_answer, ..entry });
        if let Some(row) = row {
            self.put(order.order_id, vec![row]);
        }
        row.map_or(item_id, |row| row.line.item_id)
    }

    /// The rows of an order that was written or may still be.
    fn live_entries(&self, order_id: OrderId) -> impl Iterator<Item = &Entry> {
        self.entries.get(&order_id).into_iter().flatten().filter(|entry| !entry.is_void())
    }

    /// Puts an order's rows in place of those of the same items.
    fn put(&mut self, order_id: OrderId, rows: Vec<Entry>) {
        let entries = self.entries.entry(order_id).or_default();
        entries.retain(|old| rows.iter().all(|row| row.line.item_id != old.line.item_id));
        entries.extend(rows);
        self.changed_orders.insert(order_id);
    }

    fn with_gifts_left(&self, line: OrderedLine) -> OrderedLine {
        let left = self.items.get(&line.item_id).map_or(0, Item::left_gift_units);
        OrderedLine { gift_units: line.gift_units.min(left), ..line }
    }

    /// Why a granted line can't be committed: what the script decided on may have been an old copy.
    fn refusal(&self, grant: &Grant, line: &OrderedLine) -> Option<Refusal> {
        let refusal = |reason, allowed_units: i32| {
            Some(Refusal { reason, item_id: Some(line.item_id), allowed_units: allowed_units.max(0) })
        };
        let Some(item) = self.items.get(&line.item_id).filter(|item| item.event_id == grant.event_id) else {
            return refusal(RefusalReason::NotReady, 0);
        };
        if let Some(reason) = item.window.refusal_at(grant.granted_at) {
            return Some(Refusal::of_order(reason));
        }
        let allowed = item.shelf.limit_per_buyer - self.units_of(line.item_id, grant.user_id);
        if line.units > allowed {
            refusal(RefusalReason::LimitReached, allowed)
        } else if line.units > item.left_units() {
            refusal(RefusalReason::SoldOut, item.left_units())
        } else {
            None
        }
    }

    fn units_of(&self, item_id: ItemId, user_id: UserId) -> i32 {
        self.buyers.get(&(item_id, user_id)).copied().unwrap_or(0)
    }

    /// Why the line can't be committed again. An item that is not in the stock has no units.
    fn objection(&self, user_id: UserId, line: &OrderedLine) -> Option<(RejectReason, ItemId)> {
        let Some(item) = self.items.get(&line.item_id) else { return Some((RejectReason::SoldOut, line.item_id)) };
        if line.units > item.shelf.limit_per_buyer - self.units_of(line.item_id, user_id) {
            Some((RejectReason::LimitReached, line.item_id))
        } else if line.units > item.left_units() {
            Some((RejectReason::SoldOut, line.item_id))
        } else {
            None
        }
    }

    /// Gives back whatever the order has. Returns whether it had any.
    fn release(&mut self, order_id: OrderId, now: Timestamp) -> bool {
        let mut released = Vec::new();
        for entry in self.entries.get_mut(&order_id).into_iter().flatten() {
            if let EntryState::Committed { at } = entry.state {
                entry.state = EntryState::Released { committed_at: at, released_at: now };
                released.push((entry.user_id, entry.line));
            }
        }
        for (user_id, line) in &released {
            self.changed_orders.insert(order_id);
            self.take(*user_id, *line, -1);
        }
        !released.is_empty()
    }

    /// Moves the units of a line into the ledger (`sign` 1) or out of it (-1).
    fn take(&mut self, user_id: UserId, line: OrderedLine, sign: i32) {
        let item = self.items.get_mut(&line.item_id).expect("what gives rows back has read all their items");
        item.committed.units += sign * line.units;
        item.committed.gift_units += sign * line.gift_units;
        *self.buyers.entry((line.item_id, user_id)).or_insert(0) += sign * line.units;
        self.changed_buyers.insert((line.item_id, user_id));
    }
}

#[cfg(test)]
pub(super) mod tests;
