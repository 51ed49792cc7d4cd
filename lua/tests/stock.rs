//! The stock scripts on a real Redis: window, limit, sold out, all or nothing, gifts, repeats, syncing and staging.
//!
//! Every test has a key prefix of its own, so they may run at once.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use stampede_lua::{
    Redis, RedisConfig,
    stock::{
        Cause, Decision, Hold, LedgerCopy, LedgerUnits, Refusal, Reservation, ShelfItem, StagedItem, Staging, Stock,
        WantedLine,
    },
};
use stampede_vocab::{EventId, Fingerprint, ItemId, Money, OrderId, Quantity, Timestamp, UserId};
use std::time::Duration;
use uuid::Uuid;

const LONG_AGO: Timestamp = Timestamp::from_micros(1_000_000);
const FAR: Timestamp = Timestamp::from_micros(4_000_000_000_000_000);

/// One event with a shelf of its own.
struct Shelf {
    stock: Stock,
    event: EventId,
}

impl Shelf {
    /// An event that nobody has staged.
    async fn missing() -> Self {
        let url = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names a Redis to test on");
        let unique = UserId::random();
        let redis = Redis::connect(RedisConfig { url, key_prefix: format!("t:{unique}:") }).await.unwrap();
        Self { stock: Stock::new(redis), event: EventId::from_uuid(unique.uuid()) }
    }

    /// An open event with these items.
    async fn open(items: Vec<StagedItem>) -> Self {
        let shelf = Self::missing().await;
        assert!(shelf.stage(1, LONG_AGO, FAR, items).await);
        shelf
    }

    async fn stage(&self, version: i64, opens_at: Timestamp, closes_at: Timestamp, items: Vec<StagedItem>) -> bool {
        self.stage_after(version, (opens_at, closes_at), items, 0).await
    }

    async fn stage_after(
        &self,
        event_version: i64,
        (opens_at, closes_at): (Timestamp, Timestamp),
        items: Vec<StagedItem>,
        arrivals_at_least: i64,
    ) -> bool {
        let event_id = self.event;
        let staging =
            Staging { event_id, event_version, opens_at, closes_at, items_expire_at: FAR, arrivals_at_least, items };
        self.stock.stage(&staging).await.unwrap()
    }

    async fn reserve(&self, asks: &[Reservation]) -> Vec<Decision> {
        self.stock.reserve(self.event, asks).await.unwrap()
    }

    async fn decide(&self, order: u128, user: u128, lines: &[(u128, i64)]) -> Decision {
        self.reserve(&[ask(order, user, lines)]).await.remove(0)
    }

    async fn hold(&self, order: u128, user: u128, lines: &[(u128, i64)]) -> Hold {
        match self.decide(order, user, lines).await {
            Decision::Held(hold) => hold,
            Decision::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    async fn refusal(&self, order: u128, user: u128, lines: &[(u128, i64)]) -> Refusal {
        match self.decide(order, user, lines).await {
            Decision::Refused(refusal) => refusal,
            Decision::Held(hold) => panic!("held: {hold:?}"),
        }
    }

    async fn item(&self, n: u128) -> ShelfItem {
        self.stock.snapshot(self.event, &[item_id(n)]).await.unwrap().items[0].expect("the item is staged")
    }

    /// Settles item 1 at this version, for one buyer, and drops the holds of these orders.
    async fn sync(&self, version: i64, units: i32, buyer: (u128, i32), orders: &[u128]) -> u32 {
        let ledger_copies = [ledger_copy(version, units, &[buyer], false)];
        let answered: Vec<_> = orders.iter().map(|order| (order_id(*order), vec![item_id(1)])).collect();
        self.stock.sync(self.event, &ledger_copies, &answered).await.unwrap()
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

/// Item `n`: so many units at 19.99 EUR, two a buyer, no gifts.
fn item(n: u128, total_units: i32) -> StagedItem {
    StagedItem {
        item_id: item_id(n),
        total_units,
        limit_per_buyer: 2,
        unit_price: Money::new(1999, "EUR".parse().unwrap()),
        gift_total_units: 0,
        ledger: LedgerUnits::default(),
    }
}

/// An order of a user for `(item, units)`.
fn ask(order: u128, user: u128, lines: &[(u128, i64)]) -> Reservation {
    let line =
        |&(item, units): &(u128, i64)| WantedLine { item_id: item_id(item), units: Quantity::new(units).unwrap() };
    Reservation {
        order_id: order_id(order),
        user_id: user_id(user),
        fingerprint: Fingerprint::new([1; 32]),
        lines: lines.iter().map(line).collect(),
    }
}

/// The same order as asked for by a request with another body.
fn another_request(ask: Reservation) -> Reservation {
    Reservation { fingerprint: Fingerprint::new([2; 32]), ..ask }
}

fn ledger_copy(version: i64, committed_units: i32, buyers: &[(u128, i32)], all_buyers: bool) -> LedgerCopy {
    LedgerCopy {
        item_id: item_id(1),
        ledger: LedgerUnits { committed_units, gift_committed_units: 0, version },
        buyers: buyers.iter().map(|&(user, units)| (user_id(user), units)).collect(),
        all_buyers,
    }
}

fn refused(cause: Cause, item: Option<u128>, allowed_units: i32) -> Refusal {
    Refusal { cause, item_id: item.map(item_id), allowed_units }
}

#[tokio::test]
async fn a_hold_carries_price_arrival_and_instant() {
    let shelf = Shelf::open(vec![item(1, 5), item(2, 5)]).await;
    let first = shelf.hold(1, 1, &[(2, 2), (1, 1)]).await;
    assert_eq!((first.arrival, first.user_id), (1, user_id(1)));
    assert_eq!(first.items(), [item_id(2), item_id(1)], "in the order asked for");
    assert_eq!(first.lines[0].unit_price, Money::new(1999, "EUR".parse().unwrap()));
    let second = shelf.hold(2, 2, &[(1, 1)]).await;
    assert_eq!(second.arrival, 2);
    assert!(second.held_at >= first.held_at && first.held_at > LONG_AGO);
    assert_eq!((shelf.item(1).await.held_units, shelf.item(1).await.left_units()), (2, 3));
}

#[tokio::test]
async fn nothing_is_held_outside_the_window() {
    let shelf = Shelf::missing().await;
    shelf.stage(1, FAR, FAR.plus(Duration::from_secs(1)), vec![item(1, 5)]).await;
    assert_eq!(shelf.refusal(1, 1, &[(1, 1)]).await, refused(Cause::EventNotOpen, None, 0));
    shelf.stage(2, LONG_AGO, FAR, vec![item(1, 5)]).await;
    let hold = shelf.hold(1, 1, &[(1, 1)]).await;
    shelf.stage(3, LONG_AGO, LONG_AGO.plus(Duration::from_secs(1)), vec![item(1, 5)]).await;
    assert_eq!(shelf.refusal(2, 2, &[(1, 1)]).await, refused(Cause::EventClosed, None, 0));
    let again = shelf.hold(1, 1, &[(1, 1)]).await;
    assert_eq!(Hold { held_at: hold.held_at, ..again }, hold, "what was held stays held");
}

#[tokio::test]
async fn what_is_not_staged_is_not_ready_and_never_zero() {
    let shelf = Shelf::missing().await;
    assert_eq!(shelf.refusal(1, 1, &[(1, 1)]).await, refused(Cause::NotReady, None, 0));
    let snapshot = shelf.stock.snapshot(shelf.event, &[item_id(1)]).await.unwrap();
    assert_eq!((snapshot.event, snapshot.items), (None, vec![None]));
}

#[tokio::test]
async fn an_item_that_was_lost_is_not_ready_and_a_foreign_one_is_not_found() {
    let shelf = Shelf::missing().await;
    let expired = LONG_AGO;
    let staging = Staging {
        event_id: shelf.event,
        event_version: 1,
        opens_at: LONG_AGO,
        closes_at: FAR,
        items_expire_at: expired,
        arrivals_at_least: 0,
        items: vec![item(1, 5)],
    };
    shelf.stock.stage(&staging).await.unwrap();
    assert_eq!(shelf.refusal(1, 1, &[(1, 1)]).await, refused(Cause::NotReady, Some(1), 0));
    assert_eq!(shelf.refusal(1, 1, &[(2, 1)]).await, refused(Cause::ItemNotFound, Some(2), 0));
}

#[tokio::test]
async fn the_limit_counts_holds_and_the_ledger() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    assert_eq!(shelf.refusal(2, 1, &[(1, 2)]).await, refused(Cause::LimitReached, Some(1), 1));
    shelf.sync(1, 1, (1, 1), &[1]).await;
    assert_eq!(shelf.refusal(2, 1, &[(1, 2)]).await, refused(Cause::LimitReached, Some(1), 1));
    shelf.hold(2, 1, &[(1, 1)]).await;
    assert_eq!(shelf.refusal(3, 1, &[(1, 1)]).await, refused(Cause::LimitReached, Some(1), 0));
}

#[tokio::test]
async fn the_last_unit_goes_to_one() {
    let shelf = Shelf::open(vec![item(1, 3)]).await;
    shelf.hold(1, 1, &[(1, 2)]).await;
    assert_eq!(shelf.refusal(2, 2, &[(1, 2)]).await, refused(Cause::SoldOut, Some(1), 1));
    shelf.hold(3, 3, &[(1, 1)]).await;
    assert_eq!(shelf.refusal(4, 4, &[(1, 1)]).await, refused(Cause::SoldOut, Some(1), 0));
}

#[tokio::test]
async fn a_full_batch_is_decided_in_order_and_not_oversold() {
    let shelf = Shelf::open(vec![item(1, 100)]).await;
    let asks: Vec<_> = (1..=256).map(|n| ask(n, n, &[(1, 1)])).collect();
    let decisions = shelf.reserve(&asks).await;
    for (decision, arrival) in decisions.iter().zip(1..) {
        match decision {
            Decision::Held(hold) => assert_eq!(hold.arrival, arrival),
            Decision::Refused(refusal) => {
                assert!(arrival > 100);
                assert_eq!(*refusal, refused(Cause::SoldOut, Some(1), 0));
            }
        }
    }
    let held = decisions.iter().filter(|decision| matches!(decision, Decision::Held(_))).count();
    assert_eq!((held, shelf.item(1).await.held_units), (100, 100));
}

#[tokio::test]
async fn an_order_gets_all_of_its_lines_or_none() {
    let shelf = Shelf::open(vec![item(1, 5), item(2, 1)]).await;
    assert_eq!(shelf.refusal(1, 1, &[(1, 1), (2, 2)]).await, refused(Cause::SoldOut, Some(2), 1));
    assert_eq!((shelf.item(1).await.held_units, shelf.item(2).await.held_units), (0, 0));
    let dollars = StagedItem { unit_price: Money::new(5, "USD".parse().unwrap()), ..item(2, 1) };
    shelf.stage(2, LONG_AGO, FAR, vec![item(1, 5), dollars]).await;
    assert_eq!(shelf.refusal(1, 1, &[(1, 1), (2, 1)]).await, refused(Cause::CurrencyMismatch, Some(2), 0));
    assert_eq!(shelf.hold(1, 1, &[(1, 1)]).await.arrival, 1, "refusals are no arrivals");
}

#[tokio::test]
async fn a_repeat_gets_the_same_hold_within_a_batch_and_later() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    let twice = shelf.reserve(&[ask(1, 1, &[(1, 1)]), ask(1, 1, &[(1, 1)])]).await;
    assert_eq!(twice[0], twice[1]);
    let [Decision::Held(first), _] = &twice[..] else { panic!("{twice:?}") };
    let later = shelf.hold(1, 1, &[(1, 1)]).await;
    assert!(later.held_at > first.held_at, "asking again renews it");
    assert_eq!(Hold { held_at: first.held_at, ..later }, *first);
    let after = shelf.item(1).await;
    let event = shelf.stock.snapshot(shelf.event, &[]).await.unwrap().event.unwrap();
    assert_eq!((after.held_units, event.arrivals), (1, 1));
}

#[tokio::test]
async fn a_hold_is_not_for_another_request_under_the_same_order() {
    let shelf = Shelf::open(vec![item(1, 5), item(2, 5)]).await;
    let (mine, other) = (ask(1, 1, &[(1, 1)]), another_request(ask(1, 1, &[(2, 1)])));
    let within = shelf.reserve(&[mine.clone(), other.clone(), mine.clone()]).await;
    let reused = Decision::Refused(refused(Cause::RequestIdReused, None, 0));
    assert_eq!((&within[0], &within[1]), (&within[2], &reused));
    assert_eq!(shelf.reserve(std::slice::from_ref(&other)).await, [reused]);
    assert_eq!((shelf.item(1).await.held_units, shelf.item(2).await.held_units), (1, 0));
    let hold = shelf.hold(1, 1, &[(1, 1)]).await;
    shelf.stock.release(shelf.event, &[(order_id(1), hold.held_at)]).await.unwrap();
    assert!(matches!(shelf.reserve(&[other]).await[..], [Decision::Held(_)]), "once it is given back it is");
}

#[tokio::test]
async fn gifts_come_with_lines_while_there_are_any() {
    let shelf = Shelf::open(vec![StagedItem { gift_total_units: 2, ..item(1, 9) }, item(2, 9)]).await;
    let gifts = async |order| {
        let hold = shelf.hold(order, order, &[(1, 2), (2, 1)]).await;
        hold.lines.iter().map(|line| line.gift_units).collect::<Vec<_>>()
    };
    assert_eq!(gifts(1).await, [1, 0]);
    assert_eq!(gifts(2).await, [1, 0]);
    assert_eq!(gifts(3).await, [0, 0], "no reason to refuse");
    assert_eq!(shelf.item(1).await.left_gift_units(), 0);
    let first = shelf.hold(1, 1, &[(1, 2), (2, 1)]).await;
    shelf.stock.release(shelf.event, &[(order_id(1), first.held_at)]).await.unwrap();
    assert_eq!(gifts(4).await, [1, 0]);
}

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
    assert_eq!(ahead.stale_at, Some(2), "version 1 was skipped");
    assert_eq!(shelf.sync(1, 1, (1, 1), &[1]).await, 1);
    let after = shelf.item(1).await;
    assert_eq!((after.committed_units, after.held_units, after.ledger_version), (2, 0, 2));
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
async fn telling_all_buyers_ends_the_doubt() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.sync(7, 2, (1, 1), &[]).await;
    assert_eq!(shelf.item(1).await.stale_at, Some(7));
    let ledger_copies = |version| [ledger_copy(version, 2, &[(1, 1), (2, 1)], true)];
    shelf.stock.sync(shelf.event, &ledger_copies(6), &[]).await.unwrap();
    assert_eq!(shelf.item(1).await.stale_at, Some(7), "version 6 tells nothing of 7");
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
