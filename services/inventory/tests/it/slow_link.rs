//! A database that is far away and takes long for each row: units go back all the same.

use crate::{orders::with_order, stand::Stand};
use futures_util::future::join_all;
use stampede_testkit::{Service, as_operator, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;

/// Of each statement, and of its answer.
const DELAY: Duration = Duration::from_millis(50);
/// All of them take longer than one transaction may, which is 5 s, and half of them do not.
const ORDERS: i32 = 18;
/// Longer than the test takes until it lets the orders grow old.
const AGE: Duration = Duration::from_secs(60);
const SLOW_RELEASE: &str = "CREATE TRIGGER slow_release BEFORE UPDATE ON ledger FOR EACH ROW \
    DO SLEEP(IF(NEW.state = 'RELEASED', 0.3, 0))";

#[tokio::test]
async fn units_of_unwritten_orders_go_back_over_a_slow_link_though_all_of_them_at_once_take_too_long() {
    let mesh = with_order().set(Service::Inventory, "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", AGE.as_millis());
    let mut stand = Stand::with(mesh, &[Service::Order]).await;
    stand.sale.begin_another().await;
    let sale = &stand.sale;
    let mut shelf = sale.shelf(2);
    shelf.items[1].total_units = ORDERS;
    sale.api().stage_stock(as_operator(shelf)).await.unwrap();
    let orders: Vec<_> = (0..ORDERS).map(|_| sale.order([0, 1])).collect();
    join_all(orders.iter().map(|order| sale.reserved(order))).await;
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    sqlx::raw_sql(SLOW_RELEASE).execute(&mut *conn).await.unwrap();

    stand.mysql.slow_down(DELAY);
    // At once, so that one sweep finds all.
    let aged = sqlx::query("UPDATE reservations SET asked_at_us = ?").bind(Timestamp::now().minus(AGE).micros());
    assert_eq!(aged.execute(&mut *conn).await.unwrap().rows_affected(), orders.len() as u64);
    drop(conn);
    // A part of them, which shows the way of the rest: a transaction that does not end in time gives nothing back.
    eventually("units go back", || async {
        let mut conn = sale.inventory_db.acquire().await.ok()?;
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM ledger WHERE state = 'RELEASED'");
        let released: i64 = count.fetch_one(&mut *conn).await.ok()?;
        (released > 0).then_some(())
    })
    .await;
    let log = sale.mesh.log(Service::Inventory).unwrap();
    assert!(log.contains("release_reservations was not done within"), "all at once have taken too long");
}
