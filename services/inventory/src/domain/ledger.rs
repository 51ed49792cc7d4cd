//! The ledger as a value: applies a batch to rows that were read under lock, and returns the changes to write.

mod places;

use self::places::Places;
use crate::domain::{
    Committed, Grant, Item, LastGrant, MessageBody, Refusal, RefusalReason, RejectReason, ReservationOutcome,
    ReservedUnits,
};
use stampede_vocab::{EventId, Fingerprint, ItemId, Money, OrderId, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A change of the ledger that a message requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerCommand {
    /// Commit the units of an order again that was paid late and had given them back.
    CommitAgain(OrderedUnits),
    /// Give back the units of an order that ended without a payment.
    ReleaseUnpaid(OrderId),
    /// Give back all units of the order.
    Release(OrderId),
}

impl LedgerCommand {
    pub const fn order_id(&self) -> OrderId {
        match self {
            Self::CommitAgain(order) => order.order_id,
            Self::ReleaseUnpaid(order_id) | Self::Release(order_id) => *order_id,
        }
    }
}

/// The units that an order requests, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedUnits {
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    /// Event of all lines.
    pub event_id: EventId,
    /// Unique by item.
    pub lines: Vec<OrderedLine>,
}

/// Units of one item in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderedLine {
    pub item_id: ItemId,
    pub units: i32,
    /// Gifts promised with them.
    pub gift_units: i32,
}

/// A row of the ledger: the units of one item in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    pub event_id: EventId,
    /// Place of arrival in the event; 0 if unknown.
    pub arrival: i64,
    /// When it was granted, by the clock of Redis; `None` if its order was never written, and in rows of earlier
    /// releases.
    pub granted_at: Option<Timestamp>,
    /// Fingerprint of the request; `None` in rows of earlier releases.
    pub fingerprint: Option<Fingerprint>,
    pub line: OrderedLine,
    pub state: EntryState,
    /// The answer to the late payment of its order; `None` without one.
    pub late_answer: Option<LateAnswer>,
}

/// The answer to an order that was paid late. A repeat gets the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateAnswer {
    /// Its units were committed again.
    Committed,
    /// They were not, because of this row.
    Rejected(RejectReason),
}

/// Whether the units of a row are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    Committed {
        at: Timestamp,
    },
    Released {
        /// When they were last committed.
        committed_at: Timestamp,
        released_at: Timestamp,
    },
}

impl Entry {
    /// Returns whether its units are committed.
    pub fn is_committed(&self) -> bool {
        matches!(self.state, EntryState::Committed { .. })
    }

    /// Returns whether its units were given back because its order was never written, so that the order may be placed
    /// anew.
    pub fn is_void(&self) -> bool {
        !self.is_committed() && self.granted_at.is_none() && self.fingerprint.is_some()
    }
}

/// Committed units by item and buyer.
pub type Buyers = HashMap<(ItemId, UserId), i32>;

/// The rows that were read under the item locks, with the changes of the batch so far.
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
    /// Those of grants that it did not commit.
    uncommitted_buyers: BTreeSet<(ItemId, UserId)>,
    places: Places,
}

/// The changes of the batch, to be written in the same transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub items: Vec<ItemChange>,
    /// Units of items and buyers whose grants the ledger refused, or had committed before: the copy in Redis is wrong,
    /// or may not have come yet.
    pub corrections: Vec<ItemChange>,
    /// New and changed rows in their final state.
    pub entries: Vec<Entry>,
    /// Events of which Redis may have been rolled back to an earlier copy, with the last place that the ledger has.
    pub rolled_back: BTreeMap<EventId, i64>,
}

/// The change of an item by the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemChange {
    pub item_id: ItemId,
    pub event_id: EventId,
    /// When Redis may forget its event.
    pub kept_until: Timestamp,
    /// Units committed; negative if more were given back.
    pub units: i32,
    /// Gifts committed; negative if more were given back.
    pub gift_units: i32,
    /// Its committed units after the batch.
    pub after: Committed,
    /// Its last grant after the batch.
    pub last_grant: Option<LastGrant>,
    /// Units after the batch of each buyer whose units changed.
    pub buyers: Vec<(UserId, i32)>,
}

impl LedgerBatch {
    /// Returns a batch over these items, with the rows of its orders and the units of their buyers.
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
            uncommitted_buyers: BTreeSet::new(),
            places: Places::default(),
        }
    }

    /// Adds the last grants of all items of the events that it commits grants of.
    #[must_use]
    pub fn with_last_grants(self, last_grants: BTreeMap<EventId, Vec<LastGrant>>) -> Self {
        Self { places: Places::after(last_grants), ..self }
    }

    /// Returns the items that were not read though rows of them were, with the buyers of those rows. While there are
    /// any, the batch may give nothing back.
    pub fn items_missing(&self) -> BTreeSet<(ItemId, UserId)> {
        let is_missing = |entry: &&Entry| !self.items.contains_key(&entry.line.item_id);
        self.read.values().filter(is_missing).map(|entry| (entry.line.item_id, entry.user_id)).collect()
    }

    /// Executes a command. Returns the answer to a late payment.
    pub fn apply(&mut self, command: &LedgerCommand, now: Timestamp) -> Option<MessageBody> {
        match command {
            LedgerCommand::CommitAgain(order) => Some(self.answer_late(order, now)),
            LedgerCommand::ReleaseUnpaid(order_id) => {
                // Behind the late payment, an end without payment is a repeat of the one before it.
                if self.late_answer(*order_id).is_none() {
                    self.release(*order_id, now);
                }
                None
            }
            LedgerCommand::Release(order_id) => {
                self.release(*order_id, now);
                None
            }
        }
    }

    /// Commits a grant, all or nothing. An order that is in the ledger already gets the answer of its rows, if the
    /// request is the same, however late. Missing gifts are no reason to refuse the units.
    pub fn reserve(&mut self, grant: &Grant, now: Timestamp) -> ReservationOutcome {
        let known: Vec<Entry> = self.live_entries(grant.order_id).copied().collect();
        if !known.is_empty() {
            self.copy_uncommitted(grant);
            return ReservationOutcome::of_entries(grant, &known);
        }
        if grant.is_repeat {
            // Its units were given back since it was looked up, and nothing was granted: the caller has to retry.
            return ReservationOutcome::Refused(Refusal::of_order(RefusalReason::NotReady));
        }
        if !self.places.allow(grant) {
            // If Redis was rolled back it is rebuilt. A repeat gets a place that nobody has.
            self.copy_uncommitted(grant);
            return ReservationOutcome::Refused(Refusal::of_order(RefusalReason::NotReady));
        }
        if let Some(refusal) = grant.lines.iter().find_map(|line| self.refusal(grant, line, now)) {
            self.copy_uncommitted(grant);
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
        self.replace_rows(grant.order_id, lines.iter().map(entry).collect());
        for line in &lines {
            self.add_units(grant.user_id, *line, 1);
            self.note_place(grant, line.item_id);
        }
        ReservationOutcome::Reserved(ReservedUnits { lines, arrival: grant.arrival, committed_at: now, is_new: true })
    }

    /// Returns the unit price of each of these lines. Their items must have been read.
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

    pub fn changes(self) -> Changes {
        let mut buyers: BTreeMap<ItemId, Vec<(UserId, i32)>> = BTreeMap::new();
        for (item_id, user_id) in &self.changed_buyers {
            let units = self.buyers.get(&(*item_id, *user_id)).copied().unwrap_or(0);
            buyers.entry(*item_id).or_default().push((*user_id, units));
        }
        let items: Vec<_> = buyers.into_iter().map(|(item_id, buyers)| self.item_change(item_id, buyers)).collect();
        let entries = self.changed_orders.iter().flat_map(|order_id| &self.entries[order_id]);
        // A row whose item this batch has not locked is unchanged, and must not be written.
        let is_changed = |entry: &&Entry| self.read.get(&(entry.order_id, entry.line.item_id)) != Some(*entry);
        let entries = entries.filter(is_changed).copied().collect();
        Changes { items, corrections: self.corrections(), entries, rolled_back: self.places.rolled_back() }
    }

    /// Stores the place of arrival of a grant that was committed.
    fn note_place(&mut self, grant: &Grant, item_id: ItemId) {
        self.places.commit(grant);
        let item = self.items.get_mut(&item_id).expect("a grant whose item was not read is refused");
        if item.last_grant.is_none_or(|last| last.arrival < grant.arrival) {
            item.last_grant = Some(LastGrant { arrival: grant.arrival, granted_at: grant.granted_at });
        }
    }

    /// Has the units of the buyer copied to Redis, where a hold of this call is dropped.
    fn copy_uncommitted(&mut self, grant: &Grant) {
        if grant.is_repeat {
            // It has no hold.
            return;
        }
        let is_in_stock = |line: &&OrderedLine| self.items.contains_key(&line.item_id);
        let items = grant.lines.iter().filter(is_in_stock).map(|line| (line.item_id, grant.user_id));
        self.uncommitted_buyers.extend(items);
    }

    /// Returns the copies that go with the holds of grants that were not committed. They carry the new version of an
    /// item that changed too, and cover no change of it.
    fn corrections(&self) -> Vec<ItemChange> {
        let correction = |&(item_id, user_id): &(ItemId, UserId)| {
            let (item, before) = (&self.items[&item_id], self.before[&item_id]);
            let version =
                before.version + i64::from(self.changed_buyers.iter().any(|(changed, _)| *changed == item_id));
            let after = Committed { version, ..item.committed };
            let buyers = vec![(user_id, self.units_of(item_id, user_id))];
            let (event_id, kept_until, last_grant) = (item.event_id, item.kept_until(), item.last_grant);
            ItemChange { item_id, event_id, kept_until, units: 0, gift_units: 0, after, last_grant, buyers }
        };
        self.uncommitted_buyers.iter().map(correction).collect()
    }

    fn item_change(&self, item_id: ItemId, buyers: Vec<(UserId, i32)>) -> ItemChange {
        let (item, before) = (&self.items[&item_id], self.before[&item_id]);
        let after = Committed { version: before.version + 1, ..item.committed };
        let (units, gift_units) = (after.units - before.units, after.gift_units - before.gift_units);
        let (event_id, kept_until, last_grant) = (item.event_id, item.kept_until(), item.last_grant);
        ItemChange { item_id, event_id, kept_until, units, gift_units, after, last_grant, buyers }
    }

    fn has_units(&self, order_id: OrderId) -> bool {
        let mut live = self.live_entries(order_id).peekable();
        live.peek().is_some() && live.all(Entry::is_committed)
    }

    /// Returns the stored answer to the late payment of the order, with the item of its row.
    fn late_answer(&self, order_id: OrderId) -> Option<(LateAnswer, ItemId)> {
        let answers = self.live_entries(order_id).filter_map(|entry| Some((entry.late_answer?, entry.line.item_id)));
        // The order of the rows is undefined.
        answers.min_by_key(|(_, item_id)| *item_id)
    }

    /// Answers a late payment. A repeat gets the first answer, byte for byte: the order may wait for it again. An order
    /// that was refunded and gave its units back since gets that as its answer.
    fn answer_late(&mut self, order: &OrderedUnits, now: Timestamp) -> MessageBody {
        match self.late_answer(order.order_id) {
            Some((LateAnswer::Rejected(reason), item_id)) => MessageBody::Rejected { reason, item_id },
            Some((LateAnswer::Committed, item_id)) if !self.has_units(order.order_id) => {
                MessageBody::GivenBack { item_id }
            }
            None if !self.has_units(order.order_id) => self.commit_again(order, now),
            // It has its units, and keeps them until it is refunded.
            Some((LateAnswer::Committed, _)) | None => {
                let late_answer = Some(LateAnswer::Committed);
                let rows: Vec<_> =
                    self.live_entries(order.order_id).map(|entry| Entry { late_answer, ..*entry }).collect();
                // Ordered like the first answer: the order of the rows is undefined.
                let of_item = |line: &OrderedLine| rows.iter().find(|row| row.line.item_id == line.item_id);
                let lines = order.lines.iter().filter_map(of_item).map(|row| row.line).collect();
                self.replace_rows(order.order_id, rows);
                MessageBody::Committed { lines }
            }
        }
    }

    /// Commits an order again. If a gift went to another buyer meanwhile, the units are committed without it.
    fn commit_again(&mut self, order: &OrderedUnits, now: Timestamp) -> MessageBody {
        if let Some((reason, item_id)) = order.lines.iter().find_map(|line| self.rejection(order.user_id, line)) {
            let item_id = self.store_rejection(order, (reason, item_id), now);
            return MessageBody::Rejected { reason, item_id };
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
        self.replace_rows(order.order_id, lines.iter().map(entry).collect());
        for line in &lines {
            self.add_units(order.user_id, *line, 1);
        }
        MessageBody::Committed { lines }
    }

    /// Stores the answer in the row of the item, so that a repeat takes no units that are free by then. Adds a row if
    /// the order has none of the item; if the item does not exist, another row of the order keeps the answer. Returns
    /// the item of the row, which the answer to a repeat names too.
    fn store_rejection(
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
            self.replace_rows(order.order_id, vec![row]);
        }
        row.map_or(item_id, |row| row.line.item_id)
    }

    /// Returns the rows of an order that was written or may still be.
    fn live_entries(&self, order_id: OrderId) -> impl Iterator<Item = &Entry> {
        self.entries.get(&order_id).into_iter().flatten().filter(|entry| !entry.is_void())
    }

    /// Replaces the rows of the same items in an order.
    fn replace_rows(&mut self, order_id: OrderId, rows: Vec<Entry>) {
        let entries = self.entries.entry(order_id).or_default();
        entries.retain(|old| rows.iter().all(|row| row.line.item_id != old.line.item_id));
        entries.extend(rows);
        self.changed_orders.insert(order_id);
    }

    fn with_gifts_left(&self, line: OrderedLine) -> OrderedLine {
        let left = self.items.get(&line.item_id).map_or(0, Item::left_gift_units);
        OrderedLine { gift_units: line.gift_units.min(left), ..line }
    }

    /// Returns why a granted line can't be committed: the script may have decided on a stale copy, or long ago.
    fn refusal(&self, grant: &Grant, line: &OrderedLine, now: Timestamp) -> Option<Refusal> {
        let refusal = |reason, allowed_units: i32| {
            Some(Refusal { reason, item_id: Some(line.item_id), allowed_units: allowed_units.max(0) })
        };
        let Some(item) = self.items.get(&line.item_id).filter(|item| item.event_id == grant.event_id) else {
            return refusal(RefusalReason::NotReady, 0);
        };
        if let Some(reason) = item.window.refusal_of(grant.granted_at, now) {
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

    /// Returns why a line can't be committed again. An item that is not in the stock has no units.
    fn rejection(&self, user_id: UserId, line: &OrderedLine) -> Option<(RejectReason, ItemId)> {
        let Some(item) = self.items.get(&line.item_id) else { return Some((RejectReason::SoldOut, line.item_id)) };
        if line.units > item.shelf.limit_per_buyer - self.units_of(line.item_id, user_id) {
            Some((RejectReason::LimitReached, line.item_id))
        } else if line.units > item.left_units() {
            Some((RejectReason::SoldOut, line.item_id))
        } else {
            None
        }
    }

    /// Gives back all units of the order. Returns whether it had any.
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
            self.add_units(*user_id, *line, -1);
        }
        !released.is_empty()
    }

    /// Adds the units of a line to the committed ones (`sign` 1) or subtracts them (-1).
    fn add_units(&mut self, user_id: UserId, line: OrderedLine, sign: i32) {
        let item = self.items.get_mut(&line.item_id).expect("releasing needs all items of the rows to be read");
        item.committed.units += sign * line.units;
        item.committed.gift_units += sign * line.gift_units;
        *self.buyers.entry((line.item_id, user_id)).or_insert(0) += sign * line.units;
        self.changed_buyers.insert((line.item_id, user_id));
    }
}

#[cfg(test)]
pub(super) mod tests;
