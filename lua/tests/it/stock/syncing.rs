//! Copies of the ledger, and holds that are dropped.

use super::shelf::{FAR, LONG_AGO, Shelf, ask, item, item_id, ledger_copy, order_id, refused, user_id};
use stampede_lua::{
    RedisError,
    stock::{Cause, Decision, LedgerCopy, LedgerUnits, StagedItem},
};
use std::time::Duration;

#[tokio::test]
async fn settling_moves_units_from_the_hold_to_the_ledger_once() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.hold(1, 1, &[(1, 2)]).await;
    assert_eq!(shelf.sync(1, 2, (1, 2), &[1, 1]).await, 1);
    assert_eq!(shelf.sync(1, 2, (1, 2), &[1]).await, 0);
    let after = shelf.item(1).await;
    assert_eq!((after.committed_units, after.held_units, after.left_units()), (2, 0, 3));
    assert_eq!((after.ledger_version, after.stale_at), (1, None));
}

#[tokio::test]
async fn a_sync_that_was_overtaken_drops_its_holds_and_nothing_else() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    shelf.hold(2, 2, &[(1, 1)]).await;
    assert_eq!(shelf.sync(2, 2, (2, 1), &[2]).await, 1);
    let ahead = shelf.item(1).await;
    assert_eq!((ahead.committed_units, ahead.held_units), (2, 1), "what is left is never overstated");
    assert_eq!(ahead.stale_at, Some(1), "version 1 was skipped");
    assert_eq!(shelf.sync(1, 1, (1, 1), &[1]).await, 1);
    let after = shelf.item(1).await;
    assert_eq!((after.committed_units, after.held_units, after.ledger_version), (2, 0, 2));
    assert_eq!(after.stale_at, None, "what was skipped has come");
    assert_eq!(shelf.refusal(3, 1, &[(1, 2)]).await, refused(Cause::LimitReached, Some(1), 1));
}

#[tokio::test]
async fn an_old_sync_does_not_bring_back_what_a_buyer_returned() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.sync(2, 0, (1, 0), &[]).await;
    shelf.sync(1, 2, (1, 2), &[]).await;
    assert_eq!(shelf.item(1).await.committed_units, 0);
    shelf.hold(1, 1, &[(1, 2)]).await;
}

#[tokio::test]
async fn copying_all_buyers_ends_the_doubt() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.sync(7, 2, (1, 1), &[]).await;
    assert_eq!(shelf.item(1).await.stale_at, Some(6));
    let ledger_copies = |version| [ledger_copy(version, 2, &[(1, 1), (2, 1)], true)];
    shelf.stock.sync(shelf.event, &ledger_copies(5), &[]).await.unwrap();
    assert_eq!(shelf.item(1).await.stale_at, Some(6), "version 5 has nothing of 6");
    shelf.stock.sync(shelf.event, &ledger_copies(7), &[]).await.unwrap();
    assert_eq!(shelf.item(1).await.stale_at, None);
}

#[tokio::test]
async fn thousands_of_buyers_are_copied_in_one_call() {
    let shelf = Shelf::open(vec![item(1, 9_999)]).await;
    let buyers: Vec<_> = (1..=2_500).map(|n| (n, 2)).collect();
    shelf.stock.sync(shelf.event, &[ledger_copy(1, 5_000, &buyers, true)], &[]).await.unwrap();
    for buyer in [1, 1_250, 2_500] {
        assert_eq!(shelf.refusal(buyer, buyer, &[(1, 1)]).await, refused(Cause::LimitReached, Some(1), 0));
    }
}

#[tokio::test]
async fn a_release_gives_back_once_and_only_what_is_held() {
    let shelf = Shelf::open(vec![item(1, 5), item(2, 5)]).await;
    let held_at = shelf.hold(1, 1, &[(1, 2), (2, 1)]).await.held_at;
    shelf.hold(2, 1, &[(2, 1)]).await;
    let release = async |orders: &[u128]| {
        let holds: Vec<_> = orders.iter().map(|order| (order_id(*order), held_at)).collect();
        shelf.stock.release(shelf.event, &holds).await.unwrap()
    };
    assert_eq!(release(&[1, 9]).await, 1);
    assert_eq!(release(&[1]).await, 0);
    assert_eq!((shelf.item(1).await.held_units, shelf.item(2).await.held_units), (0, 1));
    assert_eq!(shelf.refusal(3, 1, &[(2, 2)]).await, refused(Cause::LimitReached, Some(2), 1));
    shelf.hold(4, 1, &[(1, 2)]).await;
}

#[tokio::test]
async fn a_hold_that_was_asked_for_since_is_not_given_back() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    let early = shelf.hold(1, 1, &[(1, 2)]).await;
    let late = shelf.hold(1, 1, &[(1, 2)]).await;
    assert_eq!(shelf.stock.release(shelf.event, &[(order_id(1), early.held_at)]).await.unwrap(), 0);
    assert_eq!(shelf.item(1).await.held_units, 2);
    assert_eq!(shelf.stock.release(shelf.event, &[(order_id(1), late.held_at)]).await.unwrap(), 1);
    assert_eq!(shelf.item(1).await.held_units, 0);
}

#[tokio::test]
async fn an_unreadable_hold_keeps_no_other_from_being_found_and_given_back() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    let first = shelf.hold(1, 1, &[(1, 1)]).await;
    let last = shelf.hold(3, 3, &[(1, 1)]).await;
    shelf.write_hold(2, "1|1|aa").await;

    let page = shelf.stock.aged_holds(shelf.event, 0, 1_000, Duration::ZERO).await.unwrap();
    let found: std::collections::BTreeSet<_> = page.holds.iter().map(|open| open.order_id).collect();
    assert_eq!(found, [1, 3].map(order_id).into());
    assert_eq!(page.unreadable.len(), 1, "{:?}", page.unreadable);

    // It was readable when it was found, and is not any more.
    let holds = [(order_id(1), first.held_at), (order_id(2), first.held_at), (order_id(3), last.held_at)];
    assert_eq!(shelf.stock.release(shelf.event, &holds).await.unwrap(), 2);
    assert_eq!(shelf.item(1).await.held_units, 0);
}

#[tokio::test]
async fn who_asks_for_an_unreadable_hold_gets_no_answer_and_the_others_of_the_call_do() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    let request = ask(2, 2, &[(1, 1)]);
    shelf.write_hold(2, &format!("1|1|{}|of a later release", request.fingerprint)).await;
    let asks = [ask(1, 1, &[(1, 1)]), request, ask(3, 3, &[(1, 1)])];
    let decisions = shelf.stock.reserve(shelf.event, &asks).await.unwrap();
    let is_held = |decision: &Result<Decision, RedisError>| matches!(decision, Ok(Decision::Held(_)));
    assert!(is_held(&decisions[0]) && decisions[1].is_err() && is_held(&decisions[2]), "{decisions:?}");
    assert_eq!(shelf.item(1).await.held_units, 2);
}

#[tokio::test]
async fn aged_holds_are_found_page_by_page() {
    let shelf = Shelf::open(vec![item(1, 999)]).await;
    let asks: Vec<_> = (1..=200).map(|n| ask(n, n, &[(1, 1)])).collect();
    shelf.reserve(&asks).await;
    let young = shelf.stock.aged_holds(shelf.event, 0, 1_000, Duration::from_secs(3_600)).await.unwrap();
    assert_eq!((young.next, young.holds), (None, vec![]));

    let (mut orders, mut cursor) = (std::collections::BTreeSet::new(), 0);
    loop {
        let page = shelf.stock.aged_holds(shelf.event, cursor, 50, Duration::ZERO).await.unwrap();
        orders.extend(page.holds.iter().map(|open| open.order_id));
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(orders, (1..=200).map(order_id).collect());
}

#[tokio::test]
async fn what_buyers_hold_and_have_is_read_page_by_page() {
    let shelf = Shelf::open(vec![item(1, 999)]).await;
    let asks: Vec<_> = (1..=200).map(|n| ask(n, n, &[(1, 1)])).collect();
    shelf.reserve(&asks).await;
    shelf.sync(1, 2, (7, 2), &[7]).await;

    let (mut held, mut committed, mut cursor) = (std::collections::BTreeMap::new(), Vec::new(), 0);
    loop {
        let page = shelf.stock.buyers(shelf.event, item_id(1), cursor, 50).await.unwrap();
        held.extend(page.held);
        committed.extend(page.committed);
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(held, (1..=200).filter(|n| *n != 7).map(|n| (user_id(n), 1)).collect());
    committed.dedup();
    assert_eq!(committed, [(user_id(7), 2)]);
}

#[tokio::test]
async fn staging_again_moves_the_window_and_keeps_what_is_held() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.hold(1, 1, &[(1, 2)]).await;
    assert!(shelf.stage(3, LONG_AGO, FAR, vec![item(1, 6)]).await);
    assert!(!shelf.stage(2, FAR, FAR, vec![item(1, 1)]).await, "an older version");
    let after = shelf.item(1).await;
    assert_eq!((after.total_units, after.held_units), (6, 2));
    assert_eq!(shelf.hold(2, 2, &[(1, 1)]).await.arrival, 2);
}

#[tokio::test]
async fn a_lost_event_comes_back_from_the_ledger_with_its_buyers() {
    let shelf = Shelf::missing().await;
    let sold =
        StagedItem { ledger: LedgerUnits { committed_units: 4, gift_committed_units: 0, version: 9 }, ..item(1, 5) };
    shelf.stock.sync(shelf.event, &[ledger_copy(9, 4, &[(1, 2), (2, 2)], true)], &[]).await.unwrap();
    let before = shelf.stock.snapshot(shelf.event, &[item_id(1)]).await.unwrap();
    assert_eq!(before.items, [None], "its buyers alone do not put it on the shelf");
    shelf.stage_after(1, (LONG_AGO, FAR), vec![sold], 1_000).await;
    assert_eq!(shelf.item(1).await.stale_at, None);
    assert_eq!(shelf.refusal(1, 1, &[(1, 1)]).await, refused(Cause::LimitReached, Some(1), 0));
    assert_eq!(shelf.refusal(2, 3, &[(1, 2)]).await, refused(Cause::SoldOut, Some(1), 1));
    assert_eq!(shelf.hold(3, 3, &[(1, 1)]).await.arrival, 1_001);
}

#[tokio::test]
async fn a_copy_that_covers_several_versions_leaves_nothing_in_doubt() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    let copies = [LedgerCopy { first_version: 1, ..ledger_copy(3, 3, &[(1, 1), (2, 2)], false) }];
    shelf.stock.sync(shelf.event, &copies, &[]).await.unwrap();
    assert_eq!((shelf.item(1).await.ledger_version, shelf.item(1).await.stale_at), (3, None));
    let skipped = [LedgerCopy { first_version: 5, ..ledger_copy(6, 4, &[(1, 1)], false) }];
    shelf.stock.sync(shelf.event, &skipped, &[]).await.unwrap();
    assert_eq!(shelf.item(1).await.stale_at, Some(4));
    let late = [LedgerCopy { first_version: 4, ..ledger_copy(4, 3, &[(2, 1)], false) }];
    shelf.stock.sync(shelf.event, &late, &[]).await.unwrap();
    assert_eq!(shelf.item(1).await.stale_at, None, "it comes late, and has what was skipped");
}

#[tokio::test]
async fn a_newer_copy_that_has_what_was_skipped_ends_the_doubt() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.sync(3, 1, (1, 1), &[]).await;
    assert_eq!((shelf.item(1).await.stale_from, shelf.item(1).await.stale_at), (Some(1), Some(2)));
    let copies = [LedgerCopy { first_version: 1, ..ledger_copy(4, 2, &[(1, 1), (2, 1)], false) }];
    shelf.stock.sync(shelf.event, &copies, &[]).await.unwrap();
    let after = shelf.item(1).await;
    assert_eq!((after.ledger_version, after.stale_from, after.stale_at), (4, None, None));
}

#[tokio::test]
async fn all_buyers_of_an_earlier_version_leave_only_what_came_after_it_in_doubt() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.sync(7, 2, (1, 1), &[]).await;
    shelf.stock.sync(shelf.event, &[ledger_copy(4, 2, &[(1, 1)], true)], &[]).await.unwrap();
    assert_eq!((shelf.item(1).await.stale_from, shelf.item(1).await.stale_at), (Some(5), Some(6)));
}
