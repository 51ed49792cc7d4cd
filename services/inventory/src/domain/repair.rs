//! Compares Redis with the ledger, and lists the repairs.

use crate::domain::Item;
use stampede_vocab::{ItemId, UserId};

/// The state of one event in Redis, at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventCopy {
    /// Version of the staged event; `None` if it is not staged, or may be an earlier copy.
    pub event_version: Option<i64>,
    /// Items whose held units of single buyers may differ from the holds.
    pub miscounted: Vec<ItemId>,
    /// The items, in the order of the ledger's; `None` for one that is not staged.
    pub items: Vec<Option<ItemCopy>>,
}

/// The state of one item in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemCopy {
    /// Units in the ledger, by the last copy.
    pub committed_units: i32,
    /// Gifts in the ledger, by the last copy.
    pub gift_committed_units: i32,
    /// Version of the stock row that was copied.
    pub version: i64,
    /// The first version from which on the units of single buyers may be stale; `None` if they are not.
    pub stale_from: Option<i64>,
}

/// An item whose units in Redis differed from the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    pub item_id: ItemId,
    /// Committed units by the ledger.
    pub ledger_units: i32,
    /// Committed units in Redis; `None` if it did not have the item.
    pub redis_units: Option<i32>,
}

/// An item whose units and buyers are to be copied from the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    pub item_id: ItemId,
    /// The first version of its stock row whose changes are copied; 0 for all buyers.
    pub from: i64,
    pub is_staged: bool,
}

/// The repairs of one event in Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Whether the event has to be staged: it is missing or old.
    pub stage: bool,
    /// Items whose units and buyers are to be copied.
    pub restore: Vec<Restore>,
    /// Items whose buyers with units on hold are to be counted.
    pub recount: Vec<ItemId>,
    pub drifts: Vec<Drift>,
}

impl Repairs {
    /// Compares the items of one event with their copies in Redis, given in the same order.
    ///
    /// A copy is behind only if it misses a change up to the version `watermark`: a later one may still be in flight.
    pub fn find(items: &[Item], event_copy: &EventCopy, watermark: impl Fn(&Item) -> i64) -> Self {
        let newest = items.iter().map(|item| item.event_version).max();
        let mut repairs = Self { stage: event_copy.event_version < newest, ..Self::default() };
        for (item, copy) in items.iter().zip(&event_copy.items) {
            repairs.stage |= copy.is_none();
            if let Some(from) = first_missing(item, copy.as_ref(), watermark(item)) {
                repairs.restore.push(Restore { item_id: item.id(), from, is_staged: copy.is_some() });
            }
            if event_copy.miscounted.contains(&item.id()) {
                repairs.recount.push(item.id());
            }
            repairs.drifts.extend(drift(item, copy.as_ref()));
        }
        repairs
    }

    /// Returns the repairs without the buyers of items that Redis does not have.
    #[must_use]
    pub fn without_buyers_of_missing(mut self) -> Self {
        self.restore.retain(|restore| restore.is_staged);
        self
    }

    /// Returns whether there is nothing to repair.
    pub fn is_empty(&self) -> bool {
        !self.stage && self.restore.is_empty() && self.recount.is_empty()
    }
}

/// Returns the first version whose changes the copy misses; 0 if it is wholly unreliable, `None` if it is complete.
fn first_missing(item: &Item, copy: Option<&ItemCopy>, watermark: i64) -> Option<i64> {
    let Some(copy) = copy else { return (item.committed.version > 0).then_some(0) };
    let same_version = copy.version == item.committed.version;
    let same_units =
        (copy.committed_units, copy.gift_committed_units) == (item.committed.units, item.committed.gift_units);
    if same_version && !same_units {
        return Some(0);
    }
    let stale = copy.stale_from.filter(|from| *from <= watermark);
    let behind = (copy.version < watermark).then_some(copy.version + 1);
    let first = [stale, behind].into_iter().flatten().min()?;
    Some(if item.is_numbered { first } else { 0 })
}

/// Returns the difference in units. A copy that is newer than the row read here is none.
fn drift(item: &Item, copy: Option<&ItemCopy>) -> Option<Drift> {
    let redis_units = copy.map(|copy| copy.committed_units);
    let newer = copy.is_some_and(|copy| copy.version > item.committed.version);
    let differs = redis_units != Some(item.committed.units) && !newer;
    differs.then_some(Drift { item_id: item.id(), ledger_units: item.committed.units, redis_units })
}

/// A position in the buyers of an item: after this version, if they are ordered by the version of their last change,
/// and this buyer.
pub type Position = (i64, UserId);

/// The cursor of a copy of an item's buyers, with the versions that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyCursor {
    /// The first version of the stock row whose changes are copied; 0 for all buyers.
    pub from: i64,
    /// The last version: later changes are copied on their own.
    pub to: i64,
    /// The last buyer that was copied.
    pub after: Option<Position>,
}

impl CopyCursor {
    /// Returns the cursor as text, to be stored beside the copy.
    pub fn encode(&self) -> String {
        let (version, user) = self.after.map_or((0, String::new()), |(version, user)| (version, user.to_string()));
        format!("{}|{}|{version}|{user}", self.from, self.to)
    }

    /// Parses such a text; `None` if it is in the format of another release.
    pub fn parse(cursor: &str) -> Option<Self> {
        let mut parts = cursor.split('|');
        let mut version = || parts.next()?.parse::<i64>().ok();
        let (from, to, last) = (version()?, version()?, version()?);
        let user = parts.next()?;
        let after = if user.is_empty() { None } else { Some((last, user.parse().ok()?)) };
        Some(Self { from, to, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Committed, ledger::tests::item};
    use uuid::Uuid;

    fn sold(units: i32, version: i64) -> Item {
        Item { committed: Committed { units, gift_units: 0, version }, ..item(1, 10) }
    }

    fn copy(committed_units: i32, version: i64) -> ItemCopy {
        ItemCopy { committed_units, gift_committed_units: 0, version, stale_from: None }
    }

    fn find(item: Item, copy: ItemCopy, watermark: i64) -> Repairs {
        let copied =
            EventCopy { event_version: Some(item.event_version), miscounted: Vec::new(), items: vec![Some(copy)] };
        Repairs::find(&[item], &copied, |_| watermark)
    }

    fn restore(from: i64) -> [Restore; 1] {
        [Restore { item_id: item(1, 10).id(), from, is_staged: true }]
    }

    #[test]
    fn what_is_the_same_needs_nothing() {
        let repairs = find(sold(3, 5), copy(3, 5), 5);
        assert!(repairs.is_empty() && repairs.drifts.is_empty());
    }

    #[test]
    fn a_change_on_its_way_is_left_alone_but_told() {
        let repairs = find(sold(3, 5), copy(2, 4), 4);
        assert!(repairs.is_empty());
        let drift = Drift { item_id: item(1, 10).id(), ledger_units: 3, redis_units: Some(2) };
        assert_eq!(repairs.drifts, [drift]);
    }

    #[test]
    fn of_a_change_that_was_lost_only_what_changed_is_copied_again() {
        assert_eq!(find(sold(3, 5), copy(2, 3), 5).restore, restore(4));
        let unnumbered = Item { is_numbered: false, ..sold(3, 5) };
        assert_eq!(find(unnumbered, copy(2, 3), 5).restore, restore(0));
    }

    #[test]
    fn other_units_at_the_same_version_are_set_right_and_newer_ones_are_left() {
        assert_eq!(find(sold(3, 5), copy(9, 5), 5).restore, restore(0));
        let repairs = find(sold(3, 5), copy(4, 6), 5);
        assert!(repairs.is_empty() && repairs.drifts.is_empty());
    }

    #[test]
    fn buyers_in_doubt_are_copied_again_once_their_change_has_had_time_to_come() {
        let stale = ItemCopy { stale_from: Some(4), ..copy(3, 5) };
        assert_eq!(find(sold(3, 5), stale, 5).restore, restore(4));
        assert!(find(sold(3, 5), stale, 3).is_empty());
    }

    #[test]
    fn what_redis_lost_is_copied_and_staged() {
        let lost = EventCopy { items: vec![None], ..EventCopy::default() };
        let repairs = Repairs::find(&[sold(3, 5)], &lost, |_| 5);
        assert!(repairs.stage);
        assert_eq!(repairs.restore, [Restore { is_staged: false, ..restore(0)[0] }]);
        assert_eq!(repairs.drifts[0].redis_units, None);
    }

    #[test]
    fn only_the_buyers_of_what_redis_has_are_copied_once_it_drops_the_rest() {
        let (kept, dropped) = (sold(3, 5), Item { shelf: item(2, 10).shelf, ..sold(4, 6) });
        let copied = EventCopy { items: vec![Some(copy(2, 3)), None], ..EventCopy::default() };
        let repairs = Repairs::find(&[kept, dropped], &copied, |item| item.committed.version);
        assert_eq!(repairs.restore.len(), 2, "{repairs:?}");
        let repairs = repairs.without_buyers_of_missing();
        assert!(repairs.stage);
        assert_eq!(repairs.restore, restore(4));
    }

    #[test]
    fn an_item_that_nobody_bought_is_only_staged() {
        let lost = EventCopy { items: vec![None], ..EventCopy::default() };
        let repairs = Repairs::find(&[sold(0, 0)], &lost, |_| 0);
        assert!(repairs.stage && repairs.restore.is_empty());
    }

    #[test]
    fn buyers_who_may_be_miscounted_are_counted_again() {
        let item = item(1, 10);
        let miscounted = vec![item.id()];
        let copied = EventCopy { event_version: Some(item.event_version), miscounted, items: vec![Some(copy(0, 0))] };
        let repairs = Repairs::find(&[item], &copied, |_| 0);
        assert_eq!(repairs.recount, [item.id()]);
        assert!(!repairs.is_empty());
    }

    #[test]
    fn the_place_of_a_copy_reads_back_and_another_text_does_not() {
        let begin = CopyCursor { from: 0, to: 7, after: None };
        let further = CopyCursor { from: 3, after: Some((5, UserId::from_uuid(Uuid::from_u128(9)))), ..begin };
        for cursor in [begin, further] {
            assert_eq!(CopyCursor::parse(&cursor.encode()), Some(cursor));
        }
        for text in ["", "1|2|3", "a|2|3|", "1|2|3|usr_"] {
            assert_eq!(CopyCursor::parse(text), None, "{text}");
        }
    }
}
