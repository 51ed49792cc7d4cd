//! A database that takes too long for what is due at once: all of it ends all the same.

use crate::sale::{LONG, Sale, eur};
use anyhow::Result;
use stampede_proto::order::v1::{Order, OrderState, PlaceOrderRequest};
use stampede_testkit::{MeshBuilder, Service, buyer, eventually};
use stampede_vocab::{EventId, ItemId, Timestamp};
use std::ops::Range;

/// Orders that fall due at once. To expire all of them in one transaction takes 5.9 s, and a transaction is given up
/// after 5 s. The database then goes on with it, and keeps their rows locked until it is done.
const ORDERS: usize = 18;
/// Fall due after them, one after the other: enough for a limit that grows with each to be that of all again.
const NEWCOMERS: usize = 6;
/// The first nine orders that a transaction expires take no time, each of the others 0.65 s. Those of one transaction
/// have the same `updated_us`.
const SLOW_ORDERS: &str = "CREATE TRIGGER slow_orders BEFORE UPDATE ON orders FOR EACH ROW \
    IF NEW.state = 'EXPIRED' THEN \
        SET @orders = IF(@changed <=> NEW.updated_us, @orders, 0) + 1; \
        SET @changed = NEW.updated_us; \
        DO SLEEP(IF(@orders > 9, 0.65, 0)); \
    END IF";
/// How often the sweep looks for what is due: often enough to find each newcomer while the others are locked.
const SWEEP_INTERVAL_MS: u64 = 50;
const TIMED_OUT: &str = "expire_orders was not done within";

/// Places the orders with these numbers, each of another buyer.
async fn place(sale: &Sale, event: EventId, numbers: Range<usize>) -> Result<Vec<Order>> {
    let mut placed = Vec::new();
    for number in numbers {
        let wish = sale.wish("slow", &[(ItemId::derive(event, number % 3), 1)]);
        placed.push(sale.place(buyer(), PlaceOrderRequest { event_id: event.to_string(), ..wish }).await?);
    }
    Ok(placed)
}

#[tokio::test]
async fn all_orders_expire_though_they_take_too_long_at_once_and_others_fall_due_meanwhile() -> Result<()> {
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis()).set(
        Service::Order,
        "STAMPEDE_ORDER_SWEEP_INTERVAL_MS",
        SWEEP_INTERVAL_MS,
    );
    let sale = Sale::open_with(settings).await?;
    let event = sale.another_event(2, &[eur(100), eur(100), eur(100)]).await?;
    let orders = place(&sale, event, 0..ORDERS).await?;
    let mut conn = sale.connection().await?;
    sqlx::raw_sql(SLOW_ORDERS).execute(&mut *conn).await?;
    // At once, so that one sweep finds all.
    let end = sqlx::query("UPDATE orders SET pay_deadline_us = ?").bind(Timestamp::now().micros());
    assert_eq!(end.execute(&mut *conn).await?.rows_affected(), ORDERS as u64);
    let newcomers = place(&sale, event, ORDERS..ORDERS + NEWCOMERS).await?;

    let is_too_long = || async { sale.mesh.log(Service::Order).ok()?.contains(TIMED_OUT).then_some(()) };
    eventually("all at once take too long", is_too_long).await;
    for newcomer in &newcomers {
        sale.time_is_over(newcomer).await?;
        sale.reaches(newcomer, OrderState::Expired).await;
    }
    for order in &orders {
        sale.reaches(order, OrderState::Expired).await;
    }
    assert_eq!(sale.mesh.log(Service::Order)?.matches(TIMED_OUT).count(), 1, "all at once are tried but once");
    sale.mesh.stop().await
}
