//! What the ledger does with orders, without a database.

use super::*;
use crate::domain::{ShelfItem, Window};
use stampede_vocab::Money;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_micros(1_000);
const LATER: Timestamp = Timestamp::from_micros(2_000);

/// Item `n` with so many units, two a buyer, and one gift.
pub(in crate::domain) fn item(n: u128, total_units: i32) -> Item {
    Item {
        event_id: EventId::from_uuid(Uuid::nil()),
        event_version: 1,
        window: Window { opens_at: NOW, closes_at: LATER },
        shelf: ShelfItem {
            item_id: item_id(n),
            total_units,
            limit_per_buyer: 2,
            gift_total_units: 1,
            unit_price: Money::new(100, "EUR".parse().unwrap()),
        },
        committed: Committed::default(),
    }
}

fn item_id(n: u128) -> ItemId {
    ItemId::from_uuid(Uuid::from_u128(n))
}

fn order_id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

fn user_id(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

/// Order `n` of buyer `n` for `(item, units)`.
fn order(n: u128, lines: &[(u128, i32)]) -> OrderedUnits {
    let line = |&(item, units): &(u128, i32)| OrderedLine { item_id: item_id(item), units, gift_units: 0 };
    OrderedUnits {
        order_id: order_id(n),
        user_id: user_id(n),
        event_id: EventId::from_uuid(Uuid::nil()),
        arrival: i64::try_from(n).unwrap(),
        lines: lines.iter().map(line).collect(),
    }
}

fn rejected(reason: RejectReason, item: u128) -> Option<Answer> {
    Some(Answer::Rejected { reason, item_id: item_id(item) })
}

fn book(items: Vec<Item>) -> LedgerBatch {
    LedgerBatch::new(items, Vec::new(), Buyers::new())
}

/// The ledger as it is read after `changes` were written to `items`.
fn reread(items: &[Item], changes: &Changes) -> LedgerBatch {
    let mut items = items.to_vec();
    let mut buyers = Buyers::new();
    for change in &changes.items {
        let item = items.iter_mut().find(|item| item.id() == change.item_id).unwrap();
        item.committed = change.after;
        buyers.extend(change.buyers.iter().map(|(user, units)| ((change.item_id, *user), *units)));
    }
    LedgerBatch::new(items, changes.entries.clone(), buyers)
}

#[test]
fn orders_are_committed_while_there_are_units_and_not_one_beyond() {
    let mut book = book(vec![item(1, 3)]);
    assert_eq!(book.apply(&Ask::Commit(order(1, &[(1, 2)])), NOW), Some(Answer::Committed));
    assert_eq!(book.apply(&Ask::Commit(order(2, &[(1, 2)])), NOW), rejected(RejectReason::SoldOut, 1));
    assert_eq!(book.apply(&Ask::Commit(order(3, &[(1, 1)])), NOW), Some(Answer::Committed));
    let changes = book.changes();
    assert_eq!(changes.items[0].after, Committed { units: 3, gift_units: 0, version: 1 });
    assert_eq!(changes.items[0].units, 3);
    assert_eq!(changes.items[0].buyers, [(user_id(1), 2), (user_id(3), 1)]);
    assert_eq!(changes.entries.len(), 2);
}

#[test]
fn an_order_is_all_or_nothing() {
    let mut book = book(vec![item(1, 5), item(2, 1)]);
    book.apply(&Ask::Commit(order(1, &[(2, 1)])), NOW);
    assert_eq!(book.apply(&Ask::Commit(order(2, &[(1, 1), (2, 1)])), NOW), rejected(RejectReason::SoldOut, 2));
    let changes = book.changes();
    assert_eq!(changes.items.iter().map(|item| item.item_id).collect::<Vec<_>>(), [item_id(2)]);
}

#[test]
fn the_limit_counts_what_the_buyer_has_already() {
    let buyers = Buyers::from([((item_id(1), user_id(1)), 1)]);
    let mut book = LedgerBatch::new(vec![item(1, 5)], Vec::new(), buyers);
    let answer = book.apply(&Ask::Commit(order(1, &[(1, 2)])), NOW);
    assert_eq!(answer, rejected(RejectReason::LimitReached, 1));
    assert_eq!(book.changes(), Changes::default());
}

#[test]
fn a_promised_gift_that_is_gone_rejects_the_order() {
    let with_gift = |n| {
        let mut order = order(n, &[(1, 1)]);
        order.lines[0].gift_units = 1;
        Ask::Commit(order)
    };
    let mut book = book(vec![item(1, 5)]);
    assert_eq!(book.apply(&with_gift(1), NOW), Some(Answer::Committed));
    assert_eq!(book.apply(&with_gift(2), NOW), rejected(RejectReason::SoldOut, 1));
    assert_eq!(book.changes().items[0].gift_units, 1);
}

#[test]
fn an_order_and_its_cancellation_in_one_batch_leave_a_released_row() {
    let mut book = book(vec![item(1, 1)]);
    book.apply(&Ask::Commit(order(1, &[(1, 1)])), NOW);
    book.apply(&Ask::Release(order_id(1)), LATER);
    assert_eq!(book.apply(&Ask::Commit(order(2, &[(1, 1)])), LATER), Some(Answer::Committed));
    let changes = book.changes();
    assert_eq!(changes.entries[0].state, EntryState::Released { committed_at: NOW, released_at: LATER });
    assert_eq!((changes.items[0].units, changes.items[0].after.units), (1, 1));
    assert_eq!(changes.items[0].buyers, [(user_id(1), 0), (user_id(2), 1)]);
}

#[test]
fn units_come_back_once() {
    let items = [item(1, 1)];
    let mut book = book(items.to_vec());
    book.apply(&Ask::Commit(order(1, &[(1, 1)])), NOW);
    let mut book = reread(&items, &book.changes());
    book.apply(&Ask::Release(order_id(1)), LATER);
    book.apply(&Ask::Release(order_id(1)), LATER);
    assert_eq!(book.changes().items[0].after, Committed { units: 0, gift_units: 0, version: 2 });
}

#[test]
fn releasing_what_was_never_committed_changes_nothing() {
    let mut book = book(vec![item(1, 1)]);
    assert_eq!(book.apply(&Ask::Release(order_id(9)), NOW), None);
    assert_eq!(book.changes(), Changes::default());
}

#[test]
fn an_old_order_that_gave_its_units_back_does_not_take_them_again() {
    let items = [item(1, 1)];
    let mut book = book(items.to_vec());
    book.apply(&Ask::Commit(order(1, &[(1, 1)])), NOW);
    book.apply(&Ask::Release(order_id(1)), NOW);
    let mut book = reread(&items, &book.changes());
    assert_eq!(book.apply(&Ask::Commit(order(1, &[(1, 1)])), LATER), None);
    assert_eq!(book.changes(), Changes::default());
}

#[test]
fn an_order_that_is_committed_already_is_told_so_and_takes_nothing() {
    let items = [item(1, 5)];
    let mut book = book(items.to_vec());
    book.apply(&Ask::Commit(order(1, &[(1, 2)])), NOW);
    let mut book = reread(&items, &book.changes());
    assert_eq!(book.apply(&Ask::Commit(order(1, &[(1, 2)])), LATER), Some(Answer::Committed));
    assert_eq!(book.apply(&Ask::CommitAgain(order(1, &[(1, 2)])), LATER), Some(Answer::Committed));
    assert_eq!(book.changes(), Changes::default());
}

#[test]
fn a_late_payment_takes_the_units_again_and_keeps_the_arrival() {
    let items = [item(1, 1)];
    let mut book = book(items.to_vec());
    book.apply(&Ask::Commit(order(7, &[(1, 1)])), NOW);
    book.apply(&Ask::Release(order_id(7)), NOW);
    let mut book = reread(&items, &book.changes());
    let again = OrderedUnits { arrival: 0, ..order(7, &[(1, 1)]) };
    assert_eq!(book.apply(&Ask::CommitAgain(again), LATER), Some(Answer::Committed));
    let changes = book.changes();
    assert_eq!(changes.entries[0].arrival, 7);
    assert_eq!(changes.entries[0].state, EntryState::Committed { at: LATER });
}

#[test]
fn a_late_payment_is_rejected_when_somebody_else_has_the_units() {
    let mut book = book(vec![item(1, 1)]);
    book.apply(&Ask::Commit(order(1, &[(1, 1)])), NOW);
    book.apply(&Ask::Release(order_id(1)), NOW);
    book.apply(&Ask::Commit(order(2, &[(1, 1)])), NOW);
    let answer = book.apply(&Ask::CommitAgain(order(1, &[(1, 1)])), LATER);
    assert_eq!(answer, rejected(RejectReason::SoldOut, 1));
}

#[test]
fn an_item_that_nobody_staged_has_no_units() {
    let answer = book(Vec::new()).apply(&Ask::Commit(order(1, &[(1, 1)])), NOW);
    assert_eq!(answer, rejected(RejectReason::SoldOut, 1));
}
