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
use tonic::Status;

/// Tells that the event was cancelled now, as its service does.
async fn event_cancelled(sale: &Sale, version: i64, refund_paid_orders: bool) -> Result<()> {
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
async fn counts(sale: &Sale, expected: [i32; 5]) -> Cancellation {
    eventually(&format!("the orders are counted as {expected:?}"), || async {
        let seen = cancellation(sale).await.ok()?;
        let Cancellation { ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders, .. } = seen;
        let counted = [ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders];
        (counted == expected).then_some(seen)
    })
    .await
}

async fn settled(sale: &Sale) -> Cancellation {
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
