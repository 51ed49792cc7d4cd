//! A database that is far away and takes long for each order: what is due ends all the same.

use crate::sale::{LONG, Sale, eur};
use anyhow::Result;
use stampede_proto::order::v1::PlaceOrderRequest;
use stampede_testkit::{MeshBuilder, Proxy, Service, World, buyer, eventually};
use stampede_vocab::{ItemId, Timestamp};
use std::time::Duration;

/// Of each statement, and of its answer.
const DELAY: Duration = Duration::from_millis(100);
/// All of them take longer than one transaction may, which is 5 s, and half of them do not.
const ORDERS: usize = 18;
const SLOW_ORDER: &str = "CREATE TRIGGER slow_order BEFORE UPDATE ON orders FOR EACH ROW \
    DO SLEEP(IF(NEW.state = 'EXPIRED', 0.3, 0))";

#[tokio::test]
async fn orders_expire_over_a_slow_link_though_all_of_them_at_once_take_too_long() -> Result<()> {
    let world = World::prepared().await?;
    let link = Proxy::to_url(&world.service_database_url(Service::Order)).await?;
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_DATABASE_URL", link.url()).set(
        Service::Order,
        "STAMPEDE_PAY_WINDOW_MS",
        LONG.as_millis(),
    );
    let sale = Sale::open_on(world, settings).await?;
    let event = sale.another_event(2, &[eur(100), eur(100)]).await?;
    for n in 0..ORDERS {
        let wish = sale.wish("slow", &[(ItemId::derive(event, n % 2), 1)]);
        sale.place(buyer(), PlaceOrderRequest { event_id: event.to_string(), ..wish }).await?;
    }
    let mut conn = sale.connection().await?;
    sqlx::raw_sql(SLOW_ORDER).execute(&mut *conn).await?;

    link.slow_down(DELAY);
    // At once, so that one sweep finds all.
    let end = sqlx::query("UPDATE orders SET pay_deadline_us = ?").bind(Timestamp::now().micros());
    assert_eq!(end.execute(&mut *conn).await?.rows_affected(), ORDERS as u64);
    // A part of them, which shows the way of the rest: a transaction that does not end in time ends none.
    eventually("orders expire", || async {
        let mut conn = sale.connection().await.ok()?;
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM orders WHERE state = 'EXPIRED'");
        let expired: i64 = count.fetch_one(&mut *conn).await.ok()?;
        (expired > 0).then_some(())
    })
    .await;
    assert!(
        sale.mesh.log(Service::Order)?.contains("expire_orders was not done within"),
        "all at once have taken too long"
    );
    Ok(())
}
