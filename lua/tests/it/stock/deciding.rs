//! Who gets a hold: the window, the limit, what is left, repeats, gifts.

use super::shelf::{
    FAR, LONG_AGO, Shelf, another_request, ask, item, item_id, ledger_copy, order_id, refused, user_id,
};
use stampede_lua::stock::{Cause, Decision, Hold, InLedger, Reading, Reservation, StagedItem, Staging};
use stampede_testkit::OwnRedis;
use stampede_vocab::Money;
use std::time::Duration;

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
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.lose_item(1).await;
    assert_eq!(shelf.refusal(1, 1, &[(1, 1)]).await, refused(Cause::NotReady, Some(1), 0));
    assert_eq!(shelf.refusal(1, 1, &[(2, 1)]).await, refused(Cause::ItemNotFound, Some(2), 0));
}

#[tokio::test]
async fn what_an_earlier_run_of_the_server_had_is_not_ready_until_it_was_compared_again() {
    let server = OwnRedis::durable().await.unwrap();
    let shelf = Shelf::on(server.url()).await;
    assert!(shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await);
    shelf.hold(1, 1, &[(1, 1)]).await;
    let before = shelf.stock.snapshot(shelf.event, &[item_id(1)]).await.unwrap();
    assert!(before.event.unwrap().is_compared);

    let _server = server.restart().await.unwrap();
    assert_eq!(shelf.refusal(2, 2, &[(1, 1)]).await, refused(Cause::NotReady, None, 0));
    let after = shelf.stock.snapshot(shelf.event, &[item_id(1)]).await.unwrap();
    assert!(!after.event.unwrap().is_compared && after.run_id != before.run_id);
    assert_eq!(after.items, before.items, "it has lost nothing, but nobody knows yet");
    let too_late =
        Staging { compared_on: before.run_id, ..shelf.staging(1, (LONG_AGO, FAR), vec![item(1, 5)], 0).await };
    assert!(!shelf.stock.stage(&too_late).await.unwrap(), "what was compared before the restart");
    assert!(shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await);
    assert_eq!(shelf.hold(2, 2, &[(1, 1)]).await.arrival, 2);
}

#[tokio::test]
async fn a_master_that_was_a_replica_in_between_is_not_ready_until_it_was_compared_again() {
    let (first, second) = (OwnRedis::start(&[]).await.unwrap(), OwnRedis::start(&[]).await.unwrap());
    let shelf = Shelf::on(first.url()).await;
    second.follow(&first).await.unwrap();
    assert!(shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await);
    shelf.hold(1, 1, &[(1, 1)]).await;

    // Nobody calls meanwhile, so that no connection notices.
    second.promote().await.unwrap();
    first.follow(&second).await.unwrap();
    first.promote().await.unwrap();
    assert_eq!(shelf.refusal(2, 2, &[(1, 1)]).await, refused(Cause::NotReady, None, 0));
    assert!(shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await);
    shelf.hold(2, 2, &[(1, 1)]).await;
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
async fn units_that_are_counted_twice_are_not_sold_out() {
    let shelf = Shelf::open(vec![item(1, 4)]).await;
    for order in 1..=3 {
        shelf.hold(order, order, &[(1, 1)]).await;
    }
    // The copy of the second change comes first: it has the first order, which is held as well.
    shelf.sync(2, 2, (2, 1), &[2]).await;
    assert_eq!(shelf.refusal(4, 4, &[(1, 1)]).await, refused(Cause::NotReady, Some(1), 0));
    shelf.set_behind(1, &[("limit", 3)]).await;
    assert_eq!(shelf.refusal(4, 4, &[(1, 3)]).await, refused(Cause::SoldOut, Some(1), 0), "it has not so many");
    shelf.sync(1, 1, (1, 1), &[1]).await;
    shelf.hold(4, 4, &[(1, 1)]).await;
    assert_eq!(shelf.refusal(5, 5, &[(1, 1)]).await, refused(Cause::SoldOut, Some(1), 0));
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
            Decision::KnownBuyer(_) => panic!("every buyer is new"),
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
async fn an_order_of_a_known_buyer_is_not_decided_before_the_ledger_was_asked() {
    let shelf = Shelf::open(vec![item(1, 5), item(2, 5)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    shelf.sync(1, 1, (1, 1), &[1]).await;
    let known = [unasked(ask(2, 1, &[(1, 1)])), unasked(ask(3, 1, &[(2, 1), (1, 1)]))];
    let decisions = shelf.reserve(&known).await;
    assert!(matches!(decisions[..], [Decision::KnownBuyer(_), Decision::KnownBuyer(_)]), "{decisions:?}");
    let strangers = [unasked(ask(4, 4, &[(1, 1)])), unasked(ask(5, 1, &[(2, 1)]))];
    let decisions = shelf.reserve(&strangers).await;
    assert!(decisions.iter().all(|decision| matches!(decision, Decision::Held(_))), "{decisions:?}");
    shelf.hold(2, 1, &[(1, 1)]).await;

    shelf.stage(2, LONG_AGO, LONG_AGO, vec![item(1, 5), item(2, 5)]).await;
    let closed = [unasked(ask(6, 1, &[(1, 1)])), unasked(ask(7, 7, &[(1, 1)]))];
    let refusal = Decision::Refused(refused(Cause::EventClosed, None, 0));
    let decisions = shelf.reserve(&closed).await;
    assert!(matches!(decisions[0], Decision::KnownBuyer(_)), "an order outlives its event: {decisions:?}");
    assert_eq!(decisions[1], refusal);

    shelf.stage(3, FAR, FAR, vec![item(1, 5), item(2, 5)]).await;
    let refusal = Decision::Refused(refused(Cause::EventNotOpen, None, 0));
    let decisions = shelf.reserve(&closed).await;
    assert_eq!(decisions[1], refusal);
    let Decision::KnownBuyer(reading) = &decisions[0] else { panic!("and a window that moves away: {decisions:?}") };
    let asked = [after(reading, ask(6, 1, &[(1, 1)]))];
    assert_eq!(shelf.reserve(&asked).await, [refusal], "once the ledger was asked");
}

#[tokio::test]
async fn a_known_buyer_is_decided_only_if_the_ledger_was_asked_after_the_last_change() {
    let shelf =
        Shelf::open(vec![StagedItem { gift_total_units: 5, limit_per_buyer: 9, ..item(1, 9) }, item(2, 9)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    shelf.sync(1, 1, (1, 1), &[1]).await;
    let wanted = ask(2, 1, &[(2, 1), (1, 1)]);
    let outdated = shelf.reading(unasked(wanted.clone())).await;
    assert_eq!(shelf.reading(unasked(wanted.clone())).await, outdated, "it stays while nothing changes");

    // Another caller has the order granted and committed.
    let hold = shelf.hold(2, 1, &[(2, 1), (1, 1)]).await;
    let again = shelf.reserve(&[after(&outdated, wanted.clone())]).await;
    let [Decision::Held(renewed)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(renewed.arrival, hold.arrival, "while there is a hold, it tells");
    let both = [(order_id(2), vec![item_id(1), item_id(2)])];
    shelf.stock.sync(shelf.event, &[ledger_copy(2, 2, &[(1, 2)], false)], &both).await.unwrap();

    let reading = shelf.reading(after(&outdated, wanted.clone())).await;
    assert_ne!(reading, outdated);
    let untouched = shelf.item(1).await;
    assert_eq!((untouched.held_units, untouched.gift_held_units), (0, 0), "nothing is taken");
    let decided = shelf.reserve(&[after(&reading, wanted)]).await;
    let [Decision::Held(next)] = &decided[..] else { panic!("{decided:?}") };
    assert_eq!(next.arrival, hold.arrival + 1, "nor any place of arrival");
}

#[tokio::test]
async fn units_that_come_and_go_between_two_calls_are_seen() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    shelf.sync(1, 1, (1, 1), &[1]).await;
    let wanted = ask(2, 1, &[(1, 1)]);
    let outdated = shelf.reading(unasked(wanted.clone())).await;
    shelf.sync(2, 2, (1, 2), &[]).await;
    shelf.sync(3, 1, (1, 1), &[]).await;
    assert_ne!(shelf.reading(after(&outdated, wanted)).await, outdated, "the version tells");
}

#[tokio::test]
async fn what_was_not_staged_at_the_look_up_is_looked_up_again_once_it_is() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.lose_item(1).await;
    let wanted = ask(1, 1, &[(1, 1)]);
    let outdated = shelf.reading(unasked(wanted.clone())).await;
    let refusal = Decision::Refused(refused(Cause::NotReady, Some(1), 0));
    assert_eq!(shelf.reserve(&[after(&outdated, wanted.clone())]).await, [refusal]);

    assert!(shelf.stage(2, LONG_AGO, FAR, vec![item(1, 5)]).await);
    let reading = shelf.reading(after(&outdated, wanted.clone())).await;
    assert!(matches!(shelf.reserve(&[after(&reading, wanted)]).await[..], [Decision::Held(_)]));
}

fn unasked(ask: Reservation) -> Reservation {
    Reservation { ledger: InLedger::Unknown, ..ask }
}

fn after(reading: &Reading, ask: Reservation) -> Reservation {
    Reservation { ledger: InLedger::AbsentAfter(reading.clone()), ..ask }
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
