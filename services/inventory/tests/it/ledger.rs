//! What an accepted order does to the ledger, and what Redis shows of it, also when Redis was lost.

use crate::sale::{Answer, Level, PLACED, Sale, Step, level, rejected};
use stampede_proto::inventory::v1::RefusalReason;

#[tokio::test]
async fn an_accepted_order_moves_from_the_hold_to_the_ledger() {
    let sale = Sale::open().await;
    let order = sale.order([2, 1]);
    let hold = sale.hold(&order).await;
    assert_eq!((hold.arrival, hold.lines.len()), (1, 2));
    assert_eq!(hold.lines[0].gift_units, 1);
    assert_eq!(hold.lines[0].unit_price.as_ref().unwrap().minor_units, 1999);
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));

    sale.order_says(&order, &[Step::Placed { gifts: 0 }]).await;
    assert_eq!(sale.answered(&order, 1).await, [Answer::Committed]);
    sale.stock_becomes(1, level(2, 1, 0)).await;
    sale.stock_becomes(0, Level { left: 3, committed: 2, held: 0, left_gifts: 2 }).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn the_ledger_never_commits_more_than_there_is() {
    let sale = Sale::open().await;
    let orders: Vec<_> = (0..8).map(|_| sale.order([0, 1])).collect();
    // None of them has a hold, as if Redis had been lost.
    for order in &orders {
        sale.order_says(order, &[PLACED]).await;
    }
    let mut committed = 0;
    for order in &orders {
        match &sale.answered(order, 1).await[..] {
            [Answer::Committed] => committed += 1,
            answers => assert_eq!(answers, [rejected("SOLD_OUT", &sale, 1)]),
        }
    }
    assert_eq!(committed, 3);
    sale.stock_becomes(1, level(0, 3, 0)).await;
}

#[tokio::test]
async fn the_ledger_keeps_the_limit_and_the_gifts_without_redis() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.order_says(&order, &[PLACED]).await;
    assert_eq!(sale.answered(&order, 1).await, [Answer::Committed]);
    sale.order_says(&order.again(), &[PLACED]).await;
    assert_eq!(sale.answered(&order.again(), 1).await, [rejected("LIMIT_REACHED", &sale, 1)]);

    let gifted = sale.order([1, 0]);
    sale.order_says(&gifted, &[Step::Placed { gifts: 3 }]).await;
    assert_eq!(sale.answered(&gifted, 1).await, [rejected("SOLD_OUT", &sale, 0)]);
}

#[tokio::test]
async fn what_an_order_does_takes_effect_in_order_and_once() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.hold(&order).await;
    sale.order_says(&order, &[PLACED, Step::Cancelled, Step::Cancelled]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    assert_eq!(sale.answers(&order).await, [Answer::Committed]);
    sale.hold(&order.again()).await;
}

#[tokio::test]
async fn a_late_payment_takes_the_units_again_if_there_are_any() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.order_says(&order, &[PLACED, Step::Expired, Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 2).await, [Answer::Committed, Answer::Committed]);
    sale.stock_becomes(1, level(2, 1, 0)).await;

    sale.order_says(&order, &[Step::Expired]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    for _ in 0..3 {
        let other = sale.order([0, 1]);
        sale.order_says(&other, &[PLACED]).await;
        sale.answered(&other, 1).await;
    }
    sale.order_says(&order, &[Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 3).await[2], rejected("SOLD_OUT", &sale, 1));
}

#[tokio::test]
async fn a_rejected_order_leaves_no_hold() {
    let sale = Sale::open().await;
    let order = sale.order([1, 0]);
    sale.hold(&order).await;
    sale.order_says(&order, &[Step::Placed { gifts: 3 }]).await;
    sale.answered(&order, 1).await;
    sale.stock_becomes(0, Level { left: 5, committed: 0, held: 0, left_gifts: 2 }).await;
}

#[tokio::test]
async fn lost_redis_is_not_ready_and_comes_back_from_the_ledger() {
    let sale = Sale::open().await;
    let order = sale.order([2, 0]);
    let first = sale.hold(&order).await;
    sale.order_says(&order, &[Step::Placed { gifts: 1 }]).await;
    let settled = Level { left: 3, committed: 2, held: 0, left_gifts: 1 };
    sale.stock_becomes(0, settled).await;

    sale.lose_redis().await;
    sale.stock_becomes(0, settled).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    assert!(sale.hold(&sale.order([1, 0])).await.arrival > first.arrival);
}
