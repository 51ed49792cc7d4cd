//! The sweep of deadlines waits for nobody.

use crate::sale::Sale;
use anyhow::Result;
use sqlx::Connection;
use stampede_proto::order::v1::OrderState;
use stampede_testkit::buyer;
use stampede_vocab::OrderId;
use std::time::Duration;

#[tokio::test]
async fn an_order_that_somebody_has_locked_keeps_no_other_from_expiring() -> Result<()> {
    let sale = Sale::with_time_to_pay(Duration::from_secs(1)).await?;
    let (locked, free) = (sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?);
    let id: OrderId = locked.order_id.parse()?;
    let mut conn = sale.connection().await?;
    let mut lock = conn.begin().await?;
    sqlx::query("SELECT 1 FROM orders WHERE id = ? FOR UPDATE").bind(id.uuid()).execute(&mut *lock).await?;
    sale.reaches(&free, OrderState::Expired).await;
    assert_eq!(sale.now(&locked).await?.state(), OrderState::AwaitingPayment);
    lock.rollback().await?;
    sale.reaches(&locked, OrderState::Expired).await;
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
