//! A database that takes too long for what is due at once: all of it is done all the same.

use crate::sale::{Order, PRICE, Sale};
use anyhow::Result;
use stampede_proto::payment::v1::PaymentState;
use stampede_testkit::{MeshBuilder, Service, eventually};

/// Captures that are due at once. To publish all again in one transaction takes 5.9 s, and a transaction is given up
/// after 5 s. The database then goes on with it, and keeps their rows locked until it is done.
const ORDERS: usize = 18;
/// Sets how often the sweep looks for what is due, a tenth of it, and after how much longer a capture is due again: six
/// times as long, when all is over.
const AGE_MS: u64 = 2_000;
/// The first nine rows that a statement changes take no time, each of the others 0.65 s. NOW is when it began.
const SLOW_ROWS: &str = "CREATE TRIGGER slow_rows BEFORE UPDATE ON ended_orders FOR EACH ROW \
    BEGIN \
        SET @changed_rows = IF(@began <=> NOW(6), @changed_rows, 0) + 1; \
        SET @began = NOW(6); \
        DO SLEEP(IF(@changed_rows > 9, 0.65, 0)); \
    END";
/// All at once, so that one sweep finds them all.
const DUE: &str = "INSERT INTO ended_orders (payment_id, due_us, tells) SELECT id, 1, 0 FROM payments";
const TIMED_OUT: &str = "republish_captures was not done within";

#[tokio::test]
async fn all_captures_are_published_again_though_they_take_too_long_at_once() -> Result<()> {
    let settings = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_ENDED_ORDER_AGE_MS", AGE_MS);
    let sale = Sale::open_with(settings).await?;
    let orders: Vec<_> = (0..ORDERS).map(|_| Order::new()).collect();
    sale.publish_all(orders.iter().map(|order| (*order, order.charge(1, PRICE, "pm_card_ok")))).await?;
    for order in &orders {
        sale.reaches(order, PaymentState::Captured).await;
    }
    let mut conn = sale.conn().await?;
    sqlx::raw_sql(SLOW_ROWS).execute(&mut *conn).await?;
    assert_eq!(sqlx::query(DUE).execute(&mut *conn).await?.rows_affected(), ORDERS as u64);

    let is_too_long = || async { sale.mesh.log(Service::Payment).ok()?.contains(TIMED_OUT).then_some(()) };
    eventually("all at once take too long", is_too_long).await;
    for order in &orders {
        assert_eq!(sale.published_names(order, 2).await, ["PaymentApproved"; 2]);
    }
    assert_eq!(sale.mesh.log(Service::Payment)?.matches(TIMED_OUT).count(), 1, "all at once are tried but once");
    sale.mesh.stop().await
}
