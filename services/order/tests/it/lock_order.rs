//! Changes of one order, and cancellations of its event, at the same time.

use crate::{
    cancelled_event::{counts, event_cancelled, settled},
    sale::{LONG, Sale},
};
use anyhow::Result;
use futures_util::future::{try_join, try_join_all};
use stampede_db::Conn;
use stampede_proto::order::v1::{Order, OrderState};
use stampede_testkit::{buyer, eventually};
use stampede_vocab::{OrderId, Timestamp};
use std::time::Duration;
use tokio::time::sleep;

/// Orders that are refunded while their event is cancelled.
const ORDERS: usize = 8;
/// Cancellations meanwhile, each of a version of its own.
const CANCELLATIONS: i64 = 40;
/// Within that a consumer has whatever has been sent. Nothing tells what its client has at hand.
const FETCHED_WITHIN: Duration = Duration::from_secs(1);

/// An order that is being paid.
async fn paying(sale: &Sale) -> Result<Order> {
    let order = sale.payable_lamp(buyer()).await?;
    Ok(sale.pay(&order, "p").await?)
}

/// An order that is paid, and has its goods.
async fn fulfilled(sale: &Sale) -> Result<Order> {
    let order = paying(sale).await?;
    sale.approve(&order).await?;
    Ok(sale.reaches(&order, OrderState::Fulfilled).await)
}

/// Refunds an order, and waits until its money is back.
async fn refunded(sale: &Sale, order: &Order) -> Result<Order> {
    sale.refund(order, "r").await?;
    sale.money_is_back(order).await?;
    Ok(sale.reaches(order, OrderState::Refunded).await)
}

/// Locks an order until the transaction on this connection ends.
async fn hold(sale: &Sale, order: &Order) -> Result<Conn> {
    let id: OrderId = order.order_id.parse()?;
    let mut conn = sale.connection().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *conn).await?;
    sqlx::query("SELECT id FROM orders WHERE id = ? FOR UPDATE").bind(id.uuid()).fetch_one(&mut *conn).await?;
    Ok(conn)
}

/// Waits until a transaction of the service waits for an order.
async fn somebody_waits(sale: &Sale) {
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND info LIKE '%FROM orders%ORDER BY id FOR UPDATE%' AND info NOT LIKE '%SKIP LOCKED%' \
                   AND id <> CONNECTION_ID()";
    eventually("a transaction waits for an order", || async {
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *sale.connection().await.ok()?).await.ok()?;
        (count > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_waits_for_an_order_keeps_no_cancelled_event_from_others() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let (first, second) = (paying(&sale).await?, paying(&sale).await?);
    event_cancelled(&sale, 2, false).await?;
    counts(&sale, [0, 0, 0, 0, 2]).await;
    // As if another process were walking, and for long.
    let until = Timestamp::now().plus(LONG).micros();
    let walk = "UPDATE cancelled_events SET next_walk_us = ?, walked_until_us = ?";
    sqlx::query(walk).bind(until).bind(until).execute(&mut *sale.connection().await?).await?;

    let (mut of_first, mut of_second) = (hold(&sale, &first).await?, hold(&sale, &second).await?);
    sale.approve(&first).await?;
    somebody_waits(&sale).await;
    // Read together once the first order is free.
    event_cancelled(&sale, 3, false).await?;
    sale.approve(&second).await?;
    sleep(FETCHED_WITHIN).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *of_first).await?;
    sale.reaches(&first, OrderState::Fulfilled).await;
    somebody_waits(&sale).await;
    // As whoever refunds the second order would, which they have locked.
    let event = sqlx::raw_sql("SELECT event_id FROM cancelled_events FOR UPDATE NOWAIT").execute(&mut *of_second).await;
    assert!(event.is_ok(), "the event is kept by a batch that waits for the order: {event:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut *of_second).await?;
    sale.reaches(&second, OrderState::Fulfilled).await;
    counts(&sale, [0, 2, 0, 0, 0]).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn refunds_during_cancellations_all_take_effect_once() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let paid = try_join_all((0..ORDERS).map(|_| fulfilled(&sale))).await?;
    let cancel = async {
        for version in 2..2 + CANCELLATIONS {
            event_cancelled(&sale, version, false).await?;
        }
        anyhow::Ok(())
    };
    let refunds = paid.iter().map(|order| refunded(&sale, order));
    try_join(cancel, try_join_all(refunds)).await?;

    let newest = "SELECT event_version FROM cancelled_events";
    eventually("the newest cancellation is noted", || async {
        let version: i64 = sqlx::query_scalar(newest).fetch_one(&mut *sale.connection().await.ok()?).await.ok()?;
        (version == 1 + CANCELLATIONS).then_some(())
    })
    .await;
    let all = i32::try_from(ORDERS)?;
    counts(&sale, [0, 0, all, all, 0]).await;
    settled(&sale).await;
    for order in &paid {
        let told = sale.told(order).await?;
        assert_eq!(told.iter().filter(|name| *name == "RefundRequested").count(), 1, "{told:?}");
    }
    sale.mesh.stop().await
}
