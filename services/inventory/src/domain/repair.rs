//! Where Redis differs from the ledger, and what sets it right.

use crate::domain::Item;
use stampede_vocab::ItemId;

/// What Redis has of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedItem {
    /// Units in the ledger, by the last copy.
    pub committed_units: i32,
    /// Gifts in the ledger, by the last copy.
    pub gift_committed_units: i32,
    /// Version of the stock row that was copied.
    pub version: i64,
    /// Whether what single buyers have is in doubt.
    pub stale: bool,
}

/// An item of which Redis had other units than the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    pub item_id: ItemId,
    /// Committed units by the ledger.
    pub ledger_units: i32,
    /// Committed units as Redis had them; none if it had nothing.
    pub redis_units: Option<i32>,
}

/// What has to be copied to Redis again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Whether the shelf is missing or old.
    pub stage: bool,
    /// Items whose units and buyers are to be copied from the ledger.
    pub restore: Vec<ItemId>,
    /// What differed.
    pub drifts: Vec<Drift>,
}

impl Repairs {
    /// Compares the items of one event with what Redis has: the version of its shelf, and the items in the same order.
    ///
    /// A copy is behind only if it is older than `settled` says: a change that has just been committed may still be on
    /// its way.
    pub fn find(
        items: &[Item],
        staged_version: Option<i64>,
        copies: &[Option<CopiedItem>],
        settled: impl Fn(&Item) -> i64,
    ) -> Self {
        let newest = items.iter().map(|item| item.event_version).max();
        let mut repairs = Self { stage: staged_version < newest, ..Self::default() };
        for (item, copy) in items.iter().zip(copies) {
            repairs.stage |= copy.is_none();
            if needs_copy(item, copy.as_ref(), settled(item)) {
                repairs.restore.push(item.id());
            }
            repairs.drifts.extend(drift(item, copy.as_ref()));
        }
        repairs
    }

    /// Whether Redis is as it should be.
    pub fn is_empty(&self) -> bool {
        !self.stage && self.restore.is_empty()
    }
}

fn needs_copy(item: &Item, copy: Option<&CopiedItem>, settled: i64) -> bool {
    let Some(copy) = copy else { return item.committed.version > 0 };
    let same_version = copy.version == item.committed.version;
    let same_units =
        (copy.committed_units, copy.gift_committed_units) == (item.committed.units, item.committed.gift_units);
    copy.stale || copy.version < settled || (same_version && !same_units)
}

/// A copy that is newer than the row that was read here is not a difference.
fn drift(item: &Item, copy: Option<&CopiedItem>) -> Option<Drift> {
    let redis_units = copy.map(|copy| copy.committed_units);
    let newer = copy.is_some_and(|copy| copy.version > item.committed.version);
    let differs = redis_units != Some(item.committed.units) && !newer;
    differs.then_some(Drift { item_id: item.id(), ledger_units: item.committed.units, redis_units })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Committed, ledger::tests::item};

    fn sold(units: i32, version: i64) -> Item {
        Item { committed: Committed { units, gift_units: 0, version }, ..item(1, 10) }
    }

    fn copy(committed_units: i32, version: i64) -> Option<CopiedItem> {
        Some(CopiedItem { committed_units, gift_committed_units: 0, version, stale: false })
    }

    fn find(item: Item, copy: Option<CopiedItem>, settled: i64) -> Repairs {
        Repairs::find(&[item], Some(item.event_version), &[copy], |_| settled)
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
    fn a_change_that_was_lost_is_copied_again() {
        assert_eq!(find(sold(3, 5), copy(2, 4), 5).restore, [item(1, 10).id()]);
    }

    #[test]
    fn other_units_at_the_same_version_are_set_right_and_newer_ones_are_left() {
        assert_eq!(find(sold(3, 5), copy(9, 5), 5).restore, [item(1, 10).id()]);
        let repairs = find(sold(3, 5), copy(4, 6), 5);
        assert!(repairs.is_empty() && repairs.drifts.is_empty());
    }

    #[test]
    fn buyers_in_doubt_are_copied_again() {
        let stale = copy(3, 5).map(|copy| CopiedItem { stale: true, ..copy });
        assert_eq!(find(sold(3, 5), stale, 5).restore, [item(1, 10).id()]);
    }

    #[test]
    fn what_redis_lost_is_copied_and_staged() {
        let repairs = Repairs::find(&[sold(3, 5)], None, &[None], |_| 5);
        assert!(repairs.stage);
        assert_eq!(repairs.restore, [item(1, 10).id()]);
        assert_eq!(repairs.drifts[0].redis_units, None);
    }

    #[test]
    fn an_item_that_nobody_bought_is_only_staged() {
        let repairs = find(sold(0, 0), None, 0);
        assert!(repairs.stage && repairs.restore.is_empty());
    }
}
