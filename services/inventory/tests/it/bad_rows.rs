//! A row that cannot be read harms its order or its event, and none beside it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    runs::reserve_once_there_is_room,
    sale::{Order, Sale, get_stock, level},
    stand::Stand,
};
use futures_util::StreamExt;
use stampede_proto::inventory::v1::{
    RefusalReason, ReserveRequest, WatchStockRequest, WatchStockResponse, reservation_result::Outcome,
};
use stampede_testkit::eventually;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Streaming;

/// Gives the rows of the order what only a newer release knows.
async fn spoil(sale: &Sale, order: &Order) {
    let spoil = sqlx::query("UPDATE ledger SET late_answer = 'LATER' WHERE order_id = ?").bind(order.order_id.uuid());
    let spoilt = spoil.execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
    assert_eq!(spoilt.rows_affected(), 1);
}

/// Writes a row of the order, of its first line, which only a newer release can read.
async fn write_spoilt(sale: &Sale, order: &Order) {
    let (item_id, units) = order.lines[0];
    sqlx::query(
        "INSERT INTO ledger (order_id, item_id, user_id, event_id, arrival, units, gift_units, state, committed_at_us, \
         late_answer) VALUES (?, ?, ?, ?, 1, ?, 0, 'COMMITTED', 1, 'LATER')",
    )
    .bind(order.order_id.uuid())
    .bind(item_id.uuid())
    .bind(order.buyer.uuid())
    .bind(order.event_id.uuid())
    .bind(units)
    .execute(&mut *sale.inventory_db.acquire().await.unwrap())
    .await
    .unwrap();
}

#[tokio::test]
async fn known_buyers_are_answered_beside_an_order_that_cannot_be_read() {
    let sale = Sale::open().await;
    let (bad, good) = (sale.order([1, 0]), sale.order([1, 0]));
    sale.reserved(&bad).await;
    let reserved = sale.reserved(&good).await;
    // From then on only the ledger knows the orders.
    sale.committed_becomes(0, 2).await;
    spoil(&sale, &bad).await;

    let reservations = [&bad, &good, &good.again()].map(Order::reservation).into();
    let answer = reserve_once_there_is_room(&sale.api(), ReserveRequest { reservations }).await;
    let outcomes: Vec<_> = answer.results.into_iter().map(|result| result.outcome.unwrap()).collect();
    let [Outcome::Refusal(undecided), Outcome::Reserved(repeated), Outcome::Reserved(_)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(undecided.reason(), RefusalReason::NotReady);
    assert_eq!(repeated.arrival, reserved.arrival);
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn stale_holds_are_dropped_beside_one_of_an_order_that_cannot_be_read() {
    let mut stand = Stand::new().await;
    stand.sale.begin_another().await;
    let (bad, forgotten) = (stand.sale.order([1, 0]), stand.sale.order([1, 0]));
    write_spoilt(&stand.sale, &bad).await;
    stand.is_granted_and_forgotten(&bad).await;
    stand.is_granted_and_forgotten(&forgotten).await;
    eventually("the hold is dropped", || async { (!stand.is_held(&forgotten).await).then_some(()) }).await;
    assert!(stand.is_held(&bad).await, "nobody knows whether its units are in the ledger");
    stand.sale.mesh.stop().await.unwrap();
}

/// Gives an item a currency that nobody can read.
async fn spoil_stock(sale: &Sale, index: usize) {
    let spoil = sqlx::query("UPDATE stock SET currency = '?' WHERE item_id = ?").bind(sale.item(index).uuid());
    let spoilt = spoil.execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
    assert_eq!(spoilt.rows_affected(), 1);
}

async fn watch(sale: &Sale) -> Streaming<WatchStockResponse> {
    let request = WatchStockRequest { event_id: sale.event_id.to_string() };
    sale.api().watch_stock(request).await.unwrap().into_inner()
}

/// Returns how many units of item 1 are taken or on hold, as the watch shows next.
async fn next_taken(watch: &mut Streaming<WatchStockResponse>, sale: &Sale) -> i32 {
    let next = timeout(Duration::from_secs(30), watch.next()).await.expect("the watch shows something");
    let (stocks, item_id) = (next.unwrap().unwrap().stocks, sale.item(1).to_string());
    let stock = stocks.iter().find(|stock| stock.item_id == item_id).expect("the event offers the item");
    stock.committed_units + stock.held_units
}

#[tokio::test]
async fn stock_is_viewed_and_watched_beside_an_event_that_cannot_be_read() {
    let mut sale = Sale::open().await;
    // Goes on to the end, so that each poll reads the event.
    let mut bad = watch(&sale).await;
    assert_eq!(next_taken(&mut bad, &sale).await, 0);
    spoil_stock(&sale, 0).await;
    sale.api().get_stock(get_stock(&sale)).await.expect_err("one of its items cannot be read");

    sale.begin_another().await;
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
    let mut good = watch(&sale).await;
    assert_eq!(next_taken(&mut good, &sale).await, 0);
    sale.reserved(&sale.order([0, 1])).await;
    assert_eq!(next_taken(&mut good, &sale).await, 1);
    sale.stock_becomes(1, level(2, 1, 0)).await;
    drop(bad);
}
