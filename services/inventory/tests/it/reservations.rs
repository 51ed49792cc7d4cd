//! Units taken for an order: in the ledger before the answer, the same for a repeat, given back when nobody needs them.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    orders::{rows, with_order},
    sale::{A_FEW_ROUNDS, Level, Order, Sale, Step, level, reservation_ref},
    tables::sell_to,
};
use futures_util::future::join_all;
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_testkit::{Service, as_operator, as_order_service, eventually};
use stampede_vocab::{EventId, ItemId};
use std::collections::BTreeSet;
use uuid::Uuid;

async fn staged_beside_order() -> Sale {
    let sale = Sale::with(with_order(), &[Service::Order]).await;
    sale.api().stage_stock(as_operator(sale.shelf(1))).await.unwrap();
    sale
}

async fn release(sale: &Sale, order: &Order, reserved: &proto::Reserved) -> i32 {
    let request = proto::ReleaseRequest { reservations: vec![reservation_ref(sale, order, reserved)] };
    sale.api().release(as_order_service(request)).await.unwrap().into_inner().released
}

#[tokio::test]
async fn what_is_answered_as_reserved_is_in_the_ledger() {
    let sale = Sale::open().await;
    let order = sale.order([2, 1]);
    let reserved = sale.reserved(&order).await;
    assert_eq!(sale.in_ledger(&order).await, 3, "before anybody is told");
    assert_eq!((reserved.arrival, reserved.lines.len()), (1, 2));
    assert_eq!(reserved.lines[0].gift_units, 1);
    assert_eq!(reserved.lines[0].unit_price.as_ref().unwrap().minor_units, 1999);
    assert!(reserved.commit_time.is_some() && reserved.request_time.is_some());
    sale.stock_becomes(1, level(2, 1, 0)).await;
    sale.stock_becomes(0, Level { left: 3, committed: 2, held: 0, left_gifts: 1 }).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_reserved_is_called_as_its_event_published_last() {
    let sale = Sale::open().await;
    let titles = async || {
        let lines = sale.reserved(&sale.order([1, 1])).await.lines;
        lines.into_iter().map(|line| (line.title, line.gift_title)).collect::<Vec<_>>()
    };
    let first = titles().await;
    let called = |title: &str, gift_title: &str| (title.to_owned(), gift_title.to_owned());
    assert_eq!(first, [called("Item 0", "Gift of item 0"), called("Item 1", "")]);

    // As an event service of an earlier release tells it.
    let mut untitled = sale.shelf(2);
    for item in &mut untitled.items {
        item.title.clear();
        item.gift_title.clear();
    }
    sale.api().stage_stock(as_operator(untitled)).await.unwrap();
    assert_eq!(titles().await, first);

    let mut renamed = sale.shelf(3);
    renamed.items[1].title = "가습기".to_owned();
    sale.api().stage_stock(as_operator(renamed)).await.unwrap();
    assert_eq!(titles().await, [called("Item 0", "Gift of item 0"), called("가습기", "")]);
}

#[tokio::test]
async fn a_crowd_gets_all_there_is_and_not_a_unit_more() {
    let sale = Sale::open().await;
    let orders: Vec<_> = (0..40).map(|_| sale.order([1, 0])).collect();
    let answers = join_all(orders.iter().map(|order| sale.reserve(order))).await;
    let arrivals: BTreeSet<i64> = answers
        .iter()
        .filter_map(|answer| match answer {
            Outcome::Reserved(reserved) => Some(reserved.arrival),
            Outcome::Refusal(refusal) => {
                assert_eq!(refusal.reason(), RefusalReason::SoldOut);
                None
            }
        })
        .collect();
    assert_eq!(arrivals.len(), 5, "{arrivals:?}");
    sale.stock_becomes(0, Level { left: 0, committed: 5, held: 0, left_gifts: 0 }).await;
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_when_all_is_sold_and_another_request_does_not() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    let first = sale.reserved(&order).await;
    for _ in 0..2 {
        sale.reserved(&sale.order([0, 1])).await;
    }
    sale.stock_becomes(1, level(0, 3, 0)).await;
    let repeat = sale.reserved(&order).await;
    assert_eq!((repeat.arrival, &repeat.lines, repeat.commit_time), (first.arrival, &first.lines, first.commit_time));
    assert_eq!(sale.stock(1).await, Some(level(0, 3, 0)), "it took nothing");

    let other = proto::Reservation { request_fingerprint: vec![2; 32], ..order.reservation() };
    let request = as_order_service(proto::ReserveRequest { reservations: vec![other] });
    let results = sale.api().reserve(request).await.unwrap().into_inner().results;
    let refusal = proto::Refusal { reason: RefusalReason::RequestIdReused.into(), ..proto::Refusal::default() };
    assert_eq!(results[0].outcome, Some(Outcome::Refusal(refusal)));
}

#[tokio::test]
async fn a_repeat_of_an_order_that_gave_its_units_back_takes_none() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    sale.order_says(&order, &[Step::Cancelled]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    assert_eq!(sale.refusal(&order).await, (RefusalReason::Released, 0));
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
    sale.reserved(&order.again()).await;
}

#[tokio::test]
async fn the_last_of_those_who_asked_gives_the_units_back() {
    let sale = Sale::open().await;
    let order = sale.order([1, 1]);
    let (first, second) = (sale.reserved(&order).await, sale.reserved(&order).await);
    assert_ne!(first.request_time, second.request_time);
    assert_eq!(release(&sale, &order, &first).await, 0, "the second needs them");
    assert_eq!(release(&sale, &order, &first).await, 0, "a repeat of the same is not the second");
    assert_eq!(sale.in_ledger(&order).await, 2);
    assert_eq!(release(&sale, &order, &second).await, 1);
    assert_eq!(release(&sale, &order, &second).await, 0);
    assert_eq!(sale.in_ledger(&order).await, 0);
    sale.stock_becomes(1, level(3, 0, 0)).await;
    sale.reserved(&order).await;
}

#[tokio::test]
async fn the_units_of_an_order_that_was_never_written_go_back() {
    let sale = staged_beside_order().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    assert_eq!(sale.in_ledger(&order).await, 0);
    assert_eq!(rows(&sale.inventory_db, "ledger", "order_id", &order).await, 1, "the ledger had it");
}

#[tokio::test]
async fn units_stay_while_an_order_service_with_a_longer_limit_may_write_their_order() {
    // This inventory would give them back after 0.3 s; the order service writes orders for 8 s, as by default.
    let sale = Sale::unstaged(&[Service::Order]).await;
    sale.api().stage_stock(as_operator(sale.shelf(1))).await.unwrap();
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    tokio::time::sleep(2 * A_FEW_ROUNDS).await;
    assert_eq!(sale.in_ledger(&order).await, 1);
    assert_eq!(rows(&sale.inventory_db, "reservations", "order_id", &order).await, 1, "it is asked for again");
    sale.mesh.stop().await.unwrap();
}

async fn execute(sale: &Sale, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
}

async fn count(sale: &Sale, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap()
}

/// More orders than are asked about in one go, which were never written, and whose rows only a newer release can read.
const UNREADABLE: i64 = 1_100;

#[tokio::test]
async fn orders_whose_units_cannot_go_back_are_passed_over_however_many_they_are_and_looked_at_again() {
    let sale = staged_beside_order().await;
    sell_to(&sale, UNREADABLE).await;
    for spoil in [
        "UPDATE ledger SET late_answer = 'LATER'",
        "INSERT INTO reservations (order_id, asked_at_us) SELECT order_id, 1 FROM ledger",
    ] {
        execute(&sale, spoil).await;
    }
    let order = sale.order([1, 0]);
    sale.reserved(&order).await;
    eventually("its units are back", || async { (sale.in_ledger(&order).await == 0).then_some(()) }).await;
    assert_eq!(count(&sale, "SELECT COUNT(*) FROM reservations").await, UNREADABLE);

    execute(&sale, "UPDATE ledger SET late_answer = NULL").await;
    let kept = "SELECT COUNT(*) FROM ledger WHERE state = 'COMMITTED'";
    eventually("all units are back", || async { (count(&sale, kept).await == 0).then_some(()) }).await;
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn units_stay_while_nobody_can_be_asked_about_their_order() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    tokio::time::sleep(A_FEW_ROUNDS).await;
    assert_eq!(sale.in_ledger(&order).await, 1);
    sale.stock_becomes(1, level(2, 1, 0)).await;
}

#[tokio::test]
async fn an_order_that_is_asked_for_in_two_events_at_once_gets_units_in_one() {
    let sale = Sale::open().await;
    let other = EventId::from_uuid(Uuid::from_u128(77));
    let mut shelf = sale.shelf(1);
    shelf.event_id = other.to_string();
    for (index, item) in shelf.items.iter_mut().enumerate() {
        item.item_id = ItemId::derive(other, index).to_string();
    }
    sale.api().stage_stock(as_operator(shelf)).await.unwrap();
    // As many as there are units in each.
    let here: Vec<Order> = (0..5).map(|_| sale.order([1, 0])).collect();
    let elsewhere =
        |order: &Order| Order { event_id: other, lines: vec![(ItemId::derive(other, 0), 1)], ..order.clone() };
    let there: Vec<Order> = here.iter().map(elsewhere).collect();
    let answers = join_all(here.iter().chain(&there).map(|order| sale.reserve(order))).await;
    for (index, order) in here.iter().enumerate() {
        let both = [&answers[index], &answers[here.len() + index]];
        let refusals = both.map(|answer| match answer {
            Outcome::Reserved(_) => None,
            Outcome::Refusal(refusal) => Some(refusal.reason()),
        });
        let refused: Vec<RefusalReason> = refusals.into_iter().flatten().collect();
        assert_eq!(refused, [RefusalReason::RequestIdReused], "{both:?}");
        assert_eq!(sale.in_ledger(order).await, 1);
    }
    sale.mesh.stop().await.unwrap();
}
