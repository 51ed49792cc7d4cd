//! Changes of one order, and cancellations of its event, at the same time.

use crate::{
    cancelled_event::{counts, event_cancelled, settled},
    sale::{LAMP_PRICE, LONG, Sale, eur},
};
use anyhow::Result;
use futures_util::future::{try_join, try_join_all};
use stampede_db::Conn;
use stampede_proto::order::v1::{Order, OrderState, PlaceOrderRequest};
use stampede_testkit::{buyer, eventually};
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp};
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

/// An order of this event that is not paid in time, as it was while it was being paid.
async fn expired(sale: &Sale, event: EventId) -> Result<Order> {
    let lines = [(ItemId::derive(event, 0), 1)];
    let wish = PlaceOrderRequest { event_id: event.to_string(), ..sale.wish("late", &lines) };
    let order = sale.place(buyer(), wish).await?;
    let order = sale.reaches(&order, OrderState::AwaitingPayment).await;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&paying).await?;
    sale.reaches(&paying, OrderState::Expired).await;
    Ok(paying)
}

/// Notes a cancellation that nobody walks through for now.
async fn note_cancellation(sale: &Sale, event: EventId) -> Result<()> {
    let now = Timestamp::now();
    let insert = "INSERT INTO cancelled_events (event_id, event_version, refund_paid_orders, cancel_us, received_us, \
                  next_walk_us) VALUES (?, 2, FALSE, ?, ?, ?)";
    let noted = sqlx::query(insert).bind(event.uuid()).bind(now.micros()).bind(now.micros());
    noted.bind(now.plus(LONG).micros()).execute(&mut *sale.connection().await?).await?;
    Ok(())
}

#[tokio::test]
async fn a_batch_locks_cancelled_events_in_the_order_of_their_ids_whatever_it_does_with_them() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let (lower, higher) = (sale.event, sale.another_event(2, &[eur(LAMP_PRICE)]).await?);
    let (late, refunding, first) = (expired(&sale, higher).await?, fulfilled(&sale).await?, paying(&sale).await?);
    sale.refund(&refunding, "r").await?;
    note_cancellation(&sale, lower).await?;
    note_cancellation(&sale, higher).await?;

    // Read together once the first order is free: late money for the one event, and money that is back for the other.
    let mut of_first = hold(&sale, &first).await?;
    sale.approve(&first).await?;
    somebody_waits(&sale).await;
    sale.approve(&late).await?;
    sale.money_is_back(&refunding).await?;
    sleep(FETCHED_WITHIN).await;
    let mut of_lower = sale.connection().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *of_lower).await?;
    let lock = "SELECT event_id FROM cancelled_events WHERE event_id = ? FOR UPDATE";
    sqlx::query(lock).bind(lower.uuid()).fetch_one(&mut *of_lower).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut *of_first).await?;

    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND (info LIKE '%UPDATE cancelled_events SET%' OR info LIKE '%FROM cancelled_events%FOR UPDATE%') \
                   AND id <> CONNECTION_ID()";
    eventually("the batch waits for an event", || async {
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *sale.connection().await.ok()?).await.ok()?;
        (count > 0).then_some(())
    })
    .await;
    let lock = "SELECT event_id FROM cancelled_events WHERE event_id = ? FOR UPDATE NOWAIT";
    let is_free = sqlx::query(lock).bind(higher.uuid()).fetch_one(&mut *sale.connection().await?).await;
    assert!(is_free.is_ok(), "it is kept by a batch that waits for one with a lower id: {is_free:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut *of_lower).await?;
    sale.reaches(&late, OrderState::Refunding).await;
    sale.reaches(&refunding, OrderState::Refunded).await;
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
