//! An order that somebody has locked keeps no other waiting, neither in the sweep of deadlines nor in a call.

use crate::sale::{LONG, Sale, eur};
use anyhow::Result;
use futures_util::{FutureExt, future::try_join_all};
use sqlx::Connection;
use stampede_proto::order::v1::{OrderState, PlaceOrderRequest};
use stampede_testkit::{Service, buyer};
use stampede_vocab::{ItemId, OrderId};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn an_order_that_somebody_has_locked_keeps_no_other_from_expiring() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let (locked, free) = (sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?);
    let id: OrderId = locked.order_id.parse()?;
    let mut conn = sale.connection().await?;
    // Or the sweep could come before the lock.
    sale.mesh.freeze(Service::Order, 0)?;
    for order in [&locked, &free] {
        sale.time_is_over(order).await?;
    }
    let mut lock = conn.begin().await?;
    sqlx::query("SELECT 1 FROM orders WHERE id = ? FOR UPDATE").bind(id.uuid()).execute(&mut *lock).await?;
    sale.mesh.thaw(Service::Order, 0)?;
    sale.reaches(&free, OrderState::Expired).await;
    assert_eq!(sale.now(&locked).await?.state(), OrderState::AwaitingPayment);
    lock.rollback().await?;
    sale.reaches(&locked, OrderState::Expired).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn who_waits_for_a_locked_order_keeps_no_other_call_waiting() -> Result<()> {
    let sale = Sale::open().await?;
    let (locked, free) = (sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?);
    let id: OrderId = locked.order_id.parse()?;
    let mut conn = sale.connection().await?;
    let mut lock = conn.begin().await?;
    sqlx::query("SELECT 1 FROM orders WHERE id = ? FOR UPDATE").bind(id.uuid()).execute(&mut *lock).await?;
    // As many as there are batches at a time.
    let mut waiting = Box::pin(try_join_all([sale.pay(&locked, "p"), sale.pay(&locked, "p")]));
    let early = timeout(Duration::from_millis(500), waiting.as_mut()).await;
    assert!(early.is_err(), "the order is locked: {early:?}");
    assert_eq!(sale.pay(&free, "p").await?.state(), OrderState::Paying);
    assert!(waiting.as_mut().now_or_never().is_none(), "the other call has waited for the lock");
    lock.rollback().await?;
    let paid = waiting.as_mut().await?;
    drop(waiting);
    for paying in paid {
        assert_eq!((paying.state(), paying.payment_attempts), (OrderState::Paying, 1));
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn orders_that_the_database_refuses_keep_no_other_from_expiring_however_many() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let event = sale.another_event(2, &[eur(100), eur(100), eur(100)]).await?;
    let mut orders = Vec::new();
    for n in 0..24 {
        let wish = sale.wish("r", &[(ItemId::derive(event, n % 3), 1)]);
        orders.push(sale.place(buyer(), PlaceOrderRequest { event_id: event.to_string(), ..wish }).await?);
    }
    let good = orders.split_off(20);
    // Their next version would be out of range. They are due before the others.
    for bad in &orders {
        sale.tamper(bad, "UPDATE orders SET version = 9223372036854775807 WHERE id = ?").await?;
    }
    for order in orders.iter().chain(&good) {
        sale.time_is_over(order).await?;
    }
    for order in &good {
        sale.reaches(order, OrderState::Expired).await;
    }
    for bad in &orders {
        sale.tamper(bad, "UPDATE orders SET version = 1 WHERE id = ?").await?;
    }
    for bad in &orders {
        sale.reaches(bad, OrderState::Expired).await;
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_has_ended_is_not_looked_at_again() -> Result<()> {
    let sale = Sale::open().await?;
    let due = "SELECT due_us IS NOT NULL FROM orders WHERE id = ?";
    let cancelled = sale.payable_lamp(buyer()).await?;
    assert_eq!(sale.number(&cancelled, due).await?, 1);
    sale.cancel(&cancelled, "c").await?;
    assert_eq!(sale.number(&cancelled, due).await?, 0);
    let fulfilled = sale.payable_lamp(buyer()).await?;
    sale.approve(&sale.pay(&fulfilled, "p").await?).await?;
    sale.reaches(&fulfilled, OrderState::Fulfilled).await;
    assert_eq!(sale.number(&fulfilled, due).await?, 0);
    sale.refund(&fulfilled, "r").await?;
    assert_eq!(sale.number(&fulfilled, "SELECT due_us < 0 FROM orders WHERE id = ?").await?, 1);
    sale.mesh.stop().await
}
