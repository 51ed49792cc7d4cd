//! A row of the ledger that cannot be read harms its order, and none beside it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    runs::reserve_once_there_is_room,
    sale::{Order, Sale},
    stand::Stand,
};
use stampede_proto::inventory::v1::{RefusalReason, ReserveRequest, reservation_result::Outcome};
use stampede_testkit::eventually;

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
