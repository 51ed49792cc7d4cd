//! Every message comes twice, and again behind what came later: it takes effect once.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::{Answer, Sale, Step, level, rejected, seconds_from_now};
use stampede_proto::{
    inventory::v1::{StageStockRequest, StagedItem},
    message::v1::StockRejectReason,
};
use stampede_testkit::eventually;

#[tokio::test]
async fn what_came_before_a_late_payment_takes_nothing_away_when_it_is_repeated() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    let lived = [Step::Expired, Step::Expired, Step::PaidLate, Step::PaidLate, Step::Expired, Step::PaidLate];
    sale.order_says(&order, &lived).await;
    // A late payment is a question: it gets its answer again, and no more units.
    assert_eq!(sale.answered(&order, 3).await, vec![Answer::Committed; 3]);
    assert_eq!(sale.in_ledger(&order).await, 1);
    sale.stock_becomes(1, level(2, 1, 0)).await;
}

#[tokio::test]
async fn a_refunded_order_takes_no_units_when_its_late_payment_is_repeated() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    let lived = [Step::Expired, Step::PaidLate, Step::Refunded, Step::Refunded];
    sale.order_says(&order, &lived).await;
    sale.order_says(&order, &[Step::Expired, Step::PaidLate, Step::Refunded, Step::PaidLate]).await;
    let rejected = rejected(StockRejectReason::SoldOut, &sale, 1);
    assert_eq!(sale.answered(&order, 3).await, [Answer::Committed, rejected.clone(), rejected]);
    // What is said otherwise than before comes behind it.
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT aggregate_version FROM outbox WHERE aggregateid = ? ORDER BY id")
            .bind(order.order_id.to_string())
            .fetch_all(&mut *sale.inventory_db.acquire().await.unwrap())
            .await
            .unwrap();
    assert!(versions[0] < versions[1] && versions[1] == versions[2], "{versions:?}");
    assert_eq!(sale.in_ledger(&order).await, 0);
    sale.stock_becomes(1, level(3, 0, 0)).await;
}

#[tokio::test]
async fn a_rejected_late_payment_stays_rejected_when_there_are_units_again() {
    let sale = Sale::open().await;
    let (order, others) = (sale.order([0, 1]), [sale.order([0, 1]), sale.order([0, 1]), sale.order([0, 1])]);
    sale.reserved(&order).await;
    sale.order_says(&order, &[Step::Expired]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    for other in &others {
        sale.reserved(other).await;
    }
    sale.order_says(&order, &[Step::PaidLate]).await;
    let rejected = rejected(StockRejectReason::SoldOut, &sale, 1);
    assert_eq!(sale.answered(&order, 1).await, std::slice::from_ref(&rejected));
    for other in &others {
        sale.order_says(other, &[Step::Cancelled, Step::Cancelled]).await;
    }
    sale.stock_becomes(1, level(3, 0, 0)).await;
    sale.order_says(&order, &[Step::Expired, Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 2).await, [rejected.clone(), rejected]);
    assert_eq!(sale.in_ledger(&order).await, 0);
}

/// How many items of the event have this version and, if one is given, this close.
async fn items_at(sale: &Sale, version: i64, closes_at_us: Option<i64>) -> i64 {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM stock WHERE event_id = ? AND event_version = ? AND closes_at_us = COALESCE(?, closes_at_us)",
    )
    .bind(sale.event_id.uuid())
    .bind(version)
    .bind(closes_at_us)
    .fetch_one(&mut *sale.inventory_db.acquire().await.unwrap())
    .await
    .unwrap()
}

async fn items_become(sale: &Sale, version: i64, items: i64) {
    eventually(&format!("{items} items have version {version}"), || async {
        (items_at(sale, version, None).await == items).then_some(())
    })
    .await;
}

/// Version 2 of the event with one item more: it is older than what is staged, so only the new item is written, which
/// shows that what was sent before was taken.
fn marker(sale: &Sale, index: usize) -> StageStockRequest {
    let mut shelf = sale.shelf(2);
    let item = StagedItem { item_id: sale.item(index).to_string(), ..shelf.items[1].clone() };
    shelf.items.push(item);
    shelf
}

#[tokio::test]
async fn an_older_version_of_an_event_moves_nothing_back() {
    let sale = Sale::unstaged(&[]).await;
    let close_time = seconds_from_now(7_200);
    let moved = StageStockRequest { close_time: Some(close_time), ..sale.shelf(3) };
    for shelf in [sale.shelf(1), moved.clone(), moved.clone(), sale.shelf(1), marker(&sale, 2)] {
        sale.event_scheduled(shelf).await;
    }
    items_become(&sale, 2, 1).await;
    assert_eq!(items_at(&sale, 3, Some(close_time.seconds * 1_000_000)).await, 2);

    sale.event_cancelled(4).await;
    items_become(&sale, 4, 3).await;
    sale.event_cancelled(4).await;
    for shelf in [moved, sale.shelf(1), marker(&sale, 3)] {
        sale.event_scheduled(shelf).await;
    }
    // The new item has the version of its message, or that of the cancellation if both were in one batch.
    let new_item = || async { (items_at(&sale, 2, None).await + items_at(&sale, 4, None).await == 4).then_some(()) };
    eventually("the new item is there", new_item).await;
    assert_eq!((items_at(&sale, 1, None).await, items_at(&sale, 3, None).await), (0, 0));
    assert_eq!(items_at(&sale, 4, Some(close_time.seconds * 1_000_000)).await, 0, "it closed when it was cancelled");
}
