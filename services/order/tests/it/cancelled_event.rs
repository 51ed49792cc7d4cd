//! Orders of an event that is cancelled.

use crate::sale::{LONG, Sale, UNITS, refusal, refused};
use anyhow::Result;
use stampede_outbox::OutboxMessage;
use stampede_proto::{
    convert::timestamp,
    message::v1::EventCancelled,
    messages,
    order::v1::{Cancellation, GetCancellationRequest, OrderState},
};
use stampede_status::Reason;
use stampede_testkit::{Service, as_operator, buyer, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tonic::Status;

/// Tells that the event was cancelled now, as its service does.
pub async fn event_cancelled(sale: &Sale, version: i64, refund_paid_orders: bool) -> Result<()> {
    let (event_id, cancel_time) = (sale.event.to_string(), Some(timestamp(Timestamp::now())));
    let cancelled = EventCancelled { event_id, version, cancel_time, refund_paid_orders };
    let (message_type, payload) = messages::encode(&cancelled);
    let message = OutboxMessage {
        aggregate_type: "event",
        aggregate_id: cancelled.event_id,
        aggregate_version: version,
        message_type,
        payload,
        traceparent: None,
    };
    let mut conn = sale.events.acquire().await?;
    stampede_outbox::append(&mut conn, &[message]).await?;
    sale.event_outbox.wake();
    Ok(())
}

/// How far the orders of the event are.
async fn cancellation(sale: &Sale) -> Result<Cancellation, Status> {
    let request = GetCancellationRequest { event_id: sale.event.to_string() };
    let answer = sale.mesh.order().get_cancellation(as_operator(request)).await?;
    answer.into_inner().cancellation.ok_or_else(|| Status::internal("no cancellation"))
}

/// Waits until the orders are counted so: ended, kept, refunds begun, refunds done, remaining.
pub async fn counts(sale: &Sale, expected: [i32; 5]) -> Cancellation {
    eventually(&format!("the orders are counted as {expected:?}"), || async {
        let seen = cancellation(sale).await.ok()?;
        let Cancellation { ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders, .. } = seen;
        let counted = [ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders];
        (counted == expected).then_some(seen)
    })
    .await
}

pub async fn settled(sale: &Sale) -> Cancellation {
    eventually("every order has ended", || async {
        cancellation(sale).await.ok().filter(|cancellation| cancellation.settle_time.is_some())
    })
    .await
}

#[tokio::test]
async fn what_is_unpaid_is_cancelled_and_what_is_paid_is_refunded_once_across_a_kill() -> Result<()> {
    let mut sale = Sale::with_time_to_pay(LONG).await?;
    let unpaid = sale.payable_lamp(buyer()).await?;
    let paying = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&paying, "p").await?;
    let paid = sale.payable_lamp(buyer()).await?;
    let paid = sale.pay(&paid, "p").await?;
    sale.approve(&paid).await?;
    sale.reaches(&paid, OrderState::Fulfilled).await;

    event_cancelled(&sale, 2, true).await?;
    sale.reaches(&unpaid, OrderState::Cancelled).await;
    sale.reaches(&paid, OrderState::Refunding).await;
    let counted = counts(&sale, [1, 0, 1, 0, 1]).await;
    assert!(counted.refund_paid_orders && counted.count_time.is_some() && counted.settle_time.is_none());
    assert_eq!(sale.now(&paying).await?.state(), OrderState::Paying, "its payment ends first");

    sale.mesh.kill_9(Service::Order)?;
    sale.decline(&paying).await?;
    event_cancelled(&sale, 2, true).await?;
    sale.mesh.restart(Service::Order).await?;
    sale.reaches(&paying, OrderState::Cancelled).await;
    sale.money_is_back(&paid).await?;
    sale.reaches(&paid, OrderState::Refunded).await;
    settled(&sale).await;
    counts(&sale, [2, 0, 1, 1, 0]).await;

    let told = sale.told(&paid).await?;
    assert_eq!(told.iter().filter(|name| *name == "RefundRequested").count(), 1, "{told:?}");
    for order in [&unpaid, &paying] {
        let told = sale.told(order).await?;
        assert_eq!(told.iter().filter(|name| *name == "OrderCancelled").count(), 1, "{told:?}");
    }
    let mut conn = sale.connection().await?;
    let taken = "SELECT COUNT(*) FROM orders WHERE state NOT IN ('CANCELLED', 'REFUNDED')";
    assert_eq!(sqlx::query_scalar::<_, i64>(taken).fetch_one(&mut *conn).await?, 0);
    Ok(())
}

#[tokio::test]
async fn paid_orders_are_kept_until_their_refund_is_asked_for() -> Result<()> {
    let sale = Sale::open().await?;
    let unknown = cancellation(&sale).await.unwrap_err();
    assert_eq!(refusal(&unknown), refused(Reason::EventNotFound, "event_id"));
    let paid = sale.payable_lamp(buyer()).await?;
    let paid = sale.pay(&paid, "p").await?;
    sale.approve(&paid).await?;
    sale.reaches(&paid, OrderState::Fulfilled).await;

    event_cancelled(&sale, 2, false).await?;
    counts(&sale, [0, 1, 0, 0, 0]).await;
    assert_eq!(sale.now(&paid).await?.state(), OrderState::Fulfilled);
    event_cancelled(&sale, 3, true).await?;
    sale.reaches(&paid, OrderState::Refunding).await;
    // An older message that comes late takes nothing back.
    event_cancelled(&sale, 2, false).await?;
    sale.money_is_back(&paid).await?;
    counts(&sale, [0, 0, 1, 1, 0]).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn the_orders_of_an_event_that_closed_a_week_ago_end_with_it_and_paid_ones_are_refunded_once() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let expired = sale.payable_lamp(buyer()).await?;
    sale.time_is_over(&expired).await?;
    sale.reaches(&expired, OrderState::Expired).await;
    let unpaid = sale.payable_lamp(buyer()).await?;
    let mut paid = Vec::new();
    for _ in 0..2 {
        let order = sale.payable_lamp(buyer()).await?;
        let order = sale.pay(&order, "p").await?;
        sale.approve(&order).await?;
        paid.push(sale.reaches(&order, OrderState::Fulfilled).await);
    }
    let last_week = "UPDATE stock SET opens_at_us = opens_at_us - 604800000000, \
                     closes_at_us = closes_at_us - 604800000000";
    sqlx::query(last_week).execute(&mut *sale.inventory_connection().await?).await?;

    // Version 3 has closed it.
    event_cancelled(&sale, 4, true).await?;
    event_cancelled(&sale, 4, true).await?;
    sale.reaches(&unpaid, OrderState::Cancelled).await;
    for order in &paid {
        sale.reaches(order, OrderState::Refunding).await;
        sale.money_is_back(order).await?;
        sale.reaches(order, OrderState::Refunded).await;
    }
    settled(&sale).await;
    counts(&sale, [2, 0, 2, 2, 0]).await;
    for order in &paid {
        let told = sale.told(order).await?;
        assert_eq!(told.iter().filter(|name| *name == "RefundRequested").count(), 1, "{told:?}");
    }
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_payment_that_comes_after_everything_had_ended_is_refunded_though_paid_orders_are_kept() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let order = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    event_cancelled(&sale, 2, false).await?;
    settled(&sale).await;

    // Nothing is sold any more, so its units are not taken again.
    sale.approve(&order).await?;
    sale.reaches(&order, OrderState::Refunding).await;
    counts(&sale, [0, 0, 1, 0, 0]).await;
    assert!(cancellation(&sale).await?.settle_time.is_none(), "its money is still to go back");
    sale.money_is_back(&order).await?;
    sale.reaches(&order, OrderState::Refunded).await;
    counts(&sale, [0, 0, 1, 1, 0]).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_payment_that_comes_during_a_walk_does_not_begin_it_again_but_is_seen_by_the_next() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let order = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    event_cancelled(&sale, 2, false).await?;
    settled(&sale).await;
    // As if another process were walking, and for long.
    let mut conn = sale.connection().await?;
    let until = Timestamp::now().plus(LONG).micros();
    let walk = "UPDATE cancelled_events SET next_walk_us = ?, walked_until_us = ?";
    sqlx::query(walk).bind(until).bind(until).execute(&mut *conn).await?;

    sale.approve(&order).await?;
    sale.reaches(&order, OrderState::Refunding).await;
    assert!(cancellation(&sale).await?.settle_time.is_none(), "its money is still to go back");
    let now = "SELECT next_walk_us, is_reopened FROM cancelled_events";
    assert_eq!(sqlx::query_as::<_, (i64, bool)>(now).fetch_one(&mut *conn).await?, (until, true));

    // That process has died, and its lease is over.
    sqlx::query("UPDATE cancelled_events SET next_walk_us = 1, walked_until_us = 1").execute(&mut *conn).await?;
    counts(&sale, [0, 0, 1, 0, 0]).await;
    let now = "SELECT is_reopened FROM cancelled_events";
    assert!(!sqlx::query_scalar::<_, bool>(now).fetch_one(&mut *conn).await?);
    sale.money_is_back(&order).await?;
    sale.reaches(&order, OrderState::Refunded).await;
    counts(&sale, [0, 0, 1, 1, 0]).await;
    sale.mesh.stop().await
}

/// Runs a statement on the schema of the orders, and returns how many rows it has changed.
async fn execute(sale: &Sale, sql: &'static str) -> Result<u64> {
    Ok(sqlx::raw_sql(sql).execute(&mut *sale.connection().await?).await?.rows_affected())
}

/// Copies the only order ten thousand times, as if all of them had come later.
const COPY_ORDER: &str = "INSERT INTO orders (id, user_id, event_id, request_id, request_fingerprint, state, version, \
     currency, subtotal_minor, discount_minor, total_minor, arrival, payment_attempts, created_us, updated_us, \
     line_list) SELECT UNHEX(MD5(n)), user_id, event_id, CONCAT('copy-', n), request_fingerprint, state, version, \
     currency, subtotal_minor, discount_minor, total_minor, 1000 + n, payment_attempts, created_us, updated_us, \
     line_list FROM orders, (SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n AS n \
     FROM digits a, digits b, digits c, digits d) numbers";

#[tokio::test]
async fn a_walk_goes_on_where_it_was_when_its_process_dies() -> Result<()> {
    let mut sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.cancel(&order, "c").await?;
    execute(&sale, "CREATE TABLE digits (n INT NOT NULL)").await?;
    execute(&sale, "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)").await?;
    assert_eq!(execute(&sale, COPY_ORDER).await?, 10_000);

    event_cancelled(&sale, 2, false).await?;
    let place = "SELECT walk_begun_us, walk_arrival FROM cancelled_events WHERE walk_arrival > 4000 AND NOT is_whole";
    let before: (i64, i64) = eventually("the walk has got half-way", || async {
        let mut conn = sale.connection().await.ok()?;
        sqlx::query_as(place).fetch_optional(&mut *conn).await.ok()?
    })
    .await;
    sale.mesh.kill_9(Service::Order)?;
    // Its lease is over, and the cancellation long ago, so that no other walk follows soon.
    let is_over = "UPDATE cancelled_events SET next_walk_us = 1, walked_until_us = 1, walk_token_us = 1, \
                   received_us = received_us - 864000000000 WHERE NOT is_whole";
    assert_eq!(execute(&sale, is_over).await?, 1);
    sale.mesh.restart(Service::Order).await?;
    counts(&sale, [10_001, 0, 0, 0, 0]).await;
    let place = "SELECT walk_begun_us, walk_arrival FROM cancelled_events";
    let (begun_us, arrival): (i64, i64) = sqlx::query_as(place).fetch_one(&mut *sale.connection().await?).await?;
    assert_eq!(begun_us, before.0, "it is the same walk");
    assert!(arrival >= before.1, "{arrival}");
    settled(&sale).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_place_that_was_left_by_a_walk_that_is_over_is_not_gone_on_from() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    event_cancelled(&sale, 2, false).await?;
    sale.reaches(&order, OrderState::Cancelled).await;
    counts(&sale, [1, 0, 0, 0, 0]).await;
    // As a replica of the release before leaves it, which knows of no place; so long ago that no other walk follows
    // soon.
    let left = "UPDATE cancelled_events SET next_walk_us = 1, walked_until_us = 1, walk_token_us = 2, \
                walk_begun_us = 1, walk_arrival = 9, walk_order_id = event_id, walk_ended_orders = 41, \
                ended_orders = 7, received_us = received_us - 864000000000";
    assert_eq!(execute(&sale, left).await?, 1);
    counts(&sale, [1, 0, 0, 0, 0]).await;
    sale.mesh.stop().await
}

/// When the next walk is due, from now on.
async fn next_walk_in(sale: &Sale) -> Result<Duration> {
    let next = "SELECT next_walk_us FROM cancelled_events";
    let next: i64 = sqlx::query_scalar(next).fetch_one(&mut *sale.connection().await?).await?;
    Ok(Timestamp::from_micros(next).since(Timestamp::now()))
}

#[tokio::test]
async fn walks_become_rare_while_a_refund_has_no_end_and_one_follows_soon_when_it_has() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let paid = sale.payable_lamp(buyer()).await?;
    let paid = sale.pay(&paid, "p").await?;
    sale.approve(&paid).await?;
    sale.reaches(&paid, OrderState::Fulfilled).await;
    event_cancelled(&sale, 2, true).await?;
    counts(&sale, [0, 0, 1, 0, 0]).await;

    // It has been so for ten days.
    let long_ago = "UPDATE cancelled_events SET received_us = received_us - 864000000000, next_walk_us = 1";
    assert_eq!(execute(&sale, long_ago).await?, 1);
    let (hour, minutes) = (Duration::from_secs(3_600), Duration::from_secs(300));
    eventually("the next walk is far away", || async { (next_walk_in(&sale).await.ok()? > 20 * hour).then_some(()) })
        .await;
    sale.money_is_back(&paid).await?;
    sale.reaches(&paid, OrderState::Refunded).await;
    let next = next_walk_in(&sale).await?;
    assert!(next > Duration::ZERO && next <= minutes, "{next:?}");
    execute(&sale, "UPDATE cancelled_events SET next_walk_us = 1").await?;
    counts(&sale, [0, 0, 1, 1, 0]).await;
    settled(&sale).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_kept_order_that_is_refunded_long_after_the_end_is_counted_anew() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let paid = sale.payable_lamp(buyer()).await?;
    let paid = sale.pay(&paid, "p").await?;
    sale.approve(&paid).await?;
    sale.reaches(&paid, OrderState::Fulfilled).await;
    event_cancelled(&sale, 2, false).await?;
    settled(&sale).await;
    let no_more = "UPDATE cancelled_events SET received_us = received_us - 864000000000, next_walk_us = 1";
    execute(&sale, no_more).await?;
    let ended = "SELECT COUNT(*) FROM cancelled_events WHERE next_walk_us IS NULL";
    eventually("there are no more walks", || async {
        let ended: i64 = sqlx::query_scalar(ended).fetch_one(&mut *sale.connection().await.ok()?).await.ok()?;
        (ended == 1).then_some(())
    })
    .await;
    counts(&sale, [0, 1, 0, 0, 0]).await;

    sale.refund(&paid, "r").await?;
    counts(&sale, [0, 0, 1, 0, 0]).await;
    sale.money_is_back(&paid).await?;
    counts(&sale, [0, 0, 1, 1, 0]).await;
    settled(&sale).await;
    sale.mesh.stop().await
}
