//! What becomes of an order in the ledger, and what Redis shows of it, also when Redis was lost.

use crate::sale::{Answer, Level, Sale, Step, level, rejected};
use stampede_proto::{inventory::v1::RefusalReason, message::v1::StockRejectReason};
use stampede_testkit::{Service, eventually};

#[tokio::test]
async fn what_an_order_does_takes_effect_in_order_and_once() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    sale.order_says(&order, &[Step::Cancelled, Step::Cancelled]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    assert_eq!(sale.answers(&order).await, []);
    sale.reserved(&order.again()).await;
}

#[tokio::test]
async fn a_late_payment_takes_the_units_again_if_there_are_any() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    sale.order_says(&order, &[Step::Expired, Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 1).await, [Answer::Committed]);
    sale.stock_becomes(1, level(2, 1, 0)).await;

    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    sale.order_says(&order, &[Step::Expired]).await;
    sale.stock_becomes(1, level(2, 1, 0)).await;
    for _ in 0..2 {
        sale.reserved(&sale.order([0, 1])).await;
    }
    sale.order_says(&order, &[Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 1).await, [rejected(StockRejectReason::SoldOut, &sale, 1)]);
}

#[tokio::test]
async fn lost_redis_is_not_ready_and_comes_back_from_the_ledger() {
    let sale = Sale::open().await;
    let order = sale.order([2, 0]);
    let first = sale.reserved(&order).await;
    let settled = Level { left: 3, committed: 2, held: 0, left_gifts: 1 };
    sale.stock_becomes(0, settled).await;

    sale.lose_redis().await;
    sale.stock_becomes(0, settled).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    assert!(sale.reserved(&sale.order([1, 0])).await.arrival > first.arrival);
    assert_eq!(sale.reserved(&order).await.arrival, first.arrival, "a repeat is still known");
}

#[tokio::test]
async fn stock_knows_the_last_place_of_arrival_whatever_comes_back() {
    let sale = Sale::open().await;
    let orders = [sale.order([1, 0]), sale.order([0, 1]), sale.order([1, 0])];
    let mut last = 0;
    for order in &orders {
        last = sale.reserved(order).await.arrival;
    }
    sale.order_says(&orders[2], &[Step::Cancelled]).await;
    let db = sale.world.database(Service::Inventory).await.unwrap();
    let known = "SELECT MAX(last_arrival), (SELECT MAX(arrival) FROM ledger), \
                 (SELECT COUNT(*) FROM ledger WHERE state = 'RELEASED') FROM stock";
    eventually("the units of the last order are back, and its place is not forgotten", || async {
        let mut conn = db.acquire().await.ok()?;
        let known: (Option<i64>, Option<i64>, i64) = sqlx::query_as(known).fetch_one(&mut *conn).await.unwrap();
        assert_eq!((known.0, known.1), (Some(last), Some(last)));
        (known.2 == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn where_an_earlier_release_has_run_the_ledger_says_which_place_of_arrival_was_the_last() {
    const LAST: i64 = 5_000_000;
    let sale = Sale::open().await;
    sale.reserved(&sale.order([2, 0])).await;
    let settled = Level { left: 3, committed: 2, held: 0, left_gifts: 1 };
    sale.stock_becomes(0, settled).await;
    // As a replica of that release leaves it: its index, and more places than are left out after a loss of Redis, of
    // which stock knows nothing.
    let db = sale.world.database(Service::Inventory).await.unwrap();
    for left in [
        "ALTER TABLE ledger ADD KEY ledger_by_arrival (event_id, arrival)",
        "UPDATE ledger SET arrival = 5000000",
        "UPDATE stock SET last_arrival = NULL",
    ] {
        sqlx::raw_sql(left).execute(&mut *db.acquire().await.unwrap()).await.unwrap();
    }
    sale.lose_redis().await;
    sale.stock_becomes(0, settled).await;
    assert!(sale.reserved(&sale.order([1, 0])).await.arrival > LAST);
}
