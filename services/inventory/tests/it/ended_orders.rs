//! Orders that have ended, and whose message never comes: their units go back all the same, once.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    orders::{place, rows, with_order},
    sale::{Level, Order, Sale, Step, prepared},
    staging::series,
    tables::sell_to,
};
use sqlx::AssertSqlSafe;
use stampede_db::Database;
use stampede_proto::inventory::v1::reservation_result::Outcome;
use stampede_testkit::{Service, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;
use uuid::Uuid;

const RELEASES: &str = "stampede_ledger_overdue_releases_total";
const UNSOLD: Level = Level { left: 5, committed: 0, held: 0, left_gifts: 2 };
/// The database does not take that an order of one unit gives it back; and what mends that.
const REFUSED: (&str, &str) = (
    "ALTER TABLE ledger ADD CONSTRAINT ck_test CHECK (state <> 'RELEASED' OR units <> 1)",
    "ALTER TABLE ledger DROP CONSTRAINT ck_test",
);
/// The row of an order of one unit has what only a newer release knows; and what mends that.
const NEWER: (&str, &str) = (
    "UPDATE ledger SET late_answer = 'LATER' WHERE units = 1 AND state = 'COMMITTED'",
    "UPDATE ledger SET late_answer = NULL WHERE late_answer = 'LATER'",
);
const SOLD: Level = Level { left: 3, committed: 2, held: 0, left_gifts: 1 };

/// An order that is written, and known to be.
async fn placed(sale: &Sale) -> Order {
    placed_of(sale, 2).await
}

/// Such an order of so many units.
async fn placed_of(sale: &Sale, units: i32) -> Order {
    let order = sale.order([units, 0]);
    // On a machine under load it may take longer than an order may, and is then not written: who asks again gets it.
    let place = || async { place(sale.mesh.order(), order.clone(), "order".to_owned()).await.ok() };
    let placed = eventually("the order is placed", place).await;
    assert_eq!(placed.order_id, order.order_id.to_string());
    eventually("nobody waits for the order to be written", || async {
        (rows(&sale.inventory_db, "reservations", "order_id", &order).await == 0).then_some(())
    })
    .await;
    order
}

/// Changes the ledger from behind. The connection is not kept: the server ends one that says nothing for seconds.
async fn alter(sale: &Sale, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
}

/// The order is in this state, and says so to nobody.
async fn ends_silently(orders: &Database, order: &Order, state: &str) {
    let end = AssertSqlSafe(format!("UPDATE orders SET state = '{state}', version = version + 1 WHERE id = ?"));
    let mut conn = orders.acquire().await.unwrap();
    let done = sqlx::query(end).bind(order.order_id.uuid()).execute(&mut *conn).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_ended_without_its_message_gives_its_units_back_and_an_open_one_keeps_them() {
    let world = prepared().await;
    let mesh = with_order().set(Service::Inventory, "STAMPEDE_INVENTORY_ENDED_ORDER_AGE_MS", 300);
    let orders = world.database(Service::Order).await.unwrap();
    let mut sale = Sale::in_world(world, mesh, &[Service::Order]).await;
    for (round, state) in ["EXPIRED", "CANCELLED", "REFUNDED"].into_iter().enumerate() {
        sale.begin_another().await;
        let (ended, open) = (placed(&sale).await, placed(&sale).await);
        ends_silently(&orders, &ended, state).await;
        sale.stock_becomes(0, SOLD).await;
        assert_eq!((sale.in_ledger(&ended).await, sale.in_ledger(&open).await), (0, 2), "{state}");
        counted(&sale, 2 * round + 1).await;
        // The message comes after all.
        sale.order_says(&ended, &[Step::Expired]).await;
        ends_silently(&orders, &open, state).await;
        sale.stock_becomes(0, UNSOLD).await;
        counted(&sale, 2 * round + 2).await;
    }
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_units_cannot_be_given_back_keeps_nobody_elses() {
    let world = prepared().await;
    let mesh = with_order().set(Service::Inventory, "STAMPEDE_INVENTORY_ENDED_ORDER_AGE_MS", 300);
    let orders = world.database(Service::Order).await.unwrap();
    let mut sale = Sale::in_world(world, mesh, &[Service::Order]).await;
    for (round, (spoil, mend)) in [REFUSED, NEWER].into_iter().enumerate() {
        sale.begin_another().await;
        let (one, bad, other) = (placed_of(&sale, 2).await, placed_of(&sale, 1).await, placed_of(&sale, 2).await);
        alter(&sale, spoil).await;
        for order in [&one, &bad, &other] {
            ends_silently(&orders, order, "EXPIRED").await;
        }
        for order in [&one, &other] {
            eventually("its units are back", || async { (sale.in_ledger(order).await == 0).then_some(()) }).await;
        }
        assert_eq!(sale.in_ledger(&bad).await, 1, "{spoil}");
        alter(&sale, mend).await;
        eventually("its units are back", || async { (sale.in_ledger(&bad).await == 0).then_some(()) }).await;
        counted(&sale, 3 * (round + 1)).await;
    }
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_orders_give_back_what_they_kept_though_those_never_written_cannot_be_looked_for() {
    let world = prepared().await;
    let mesh = with_order().set(Service::Inventory, "STAMPEDE_INVENTORY_ENDED_ORDER_AGE_MS", 300);
    let orders = world.database(Service::Order).await.unwrap();
    let mut sale = Sale::in_world(world, mesh, &[Service::Order]).await;
    sale.begin_another().await;
    let order = placed(&sale).await;
    let rename = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
    };
    rename("RENAME TABLE reservations TO reservations_away").await;
    ends_silently(&orders, &order, "EXPIRED").await;
    eventually("its units are back", || async { (sale.in_ledger(&order).await == 0).then_some(()) }).await;

    rename("RENAME TABLE reservations_away TO reservations").await;
    let unwritten = sale.order([1, 0]);
    assert!(matches!(sale.reserve(&unwritten).await, Outcome::Reserved(_)));
    eventually("it was looked for", || async { (sale.in_ledger(&unwritten).await == 0).then_some(()) }).await;
    sale.mesh.stop().await.unwrap();
}

/// So many orders were counted, each once.
async fn counted(sale: &Sale, expected: usize) {
    eventually(&format!("{expected} orders are counted"), || async {
        let count = series(sale, RELEASES, "").await?;
        (format!("{count}") == format!("{expected}")).then_some(())
    })
    .await;
}

/// How far the walk through the ledger is; nothing before its first rows and after its last.
async fn reached(sale: &Sale) -> Option<Uuid> {
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let reached = sqlx::query_scalar::<_, Option<Uuid>>("SELECT after_order_id FROM walks");
    reached.fetch_optional(&mut *conn).await.unwrap().flatten()
}

/// The walk may go on then.
async fn next_turn_at(sale: &Sale, next_us: i64) {
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let set = sqlx::query("UPDATE walks SET next_us = ?").bind(next_us).execute(&mut *conn).await.unwrap();
    assert_eq!(set.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_goes_on_where_it_was_when_its_process_dies_and_only_in_its_turn() {
    let world = prepared().await;
    // A round a second.
    let mesh = with_order().set(Service::Inventory, "STAMPEDE_INVENTORY_ENDED_ORDER_AGE_MS", 30_000);
    let mut sale = Sale::in_world(world, mesh, &[Service::Order]).await;
    sale.begin_another().await;
    // Six rounds.
    sell_to(&sale, 6_000).await;
    let middle = Uuid::from_u128(1 << 127);
    eventually("half of the ledger is looked at", || async {
        reached(&sale).await.filter(|reached| *reached > middle)
    })
    .await;
    sale.mesh.kill_9(Service::Inventory).unwrap();

    // As if another replica had the turn, and for long.
    next_turn_at(&sale, Timestamp::now().plus(Duration::from_secs(1_800)).micros()).await;
    let before = reached(&sale).await.unwrap();
    sale.mesh.restart(Service::Inventory).await.unwrap();
    // Behind each look at what was never written comes one at what has ended.
    for _ in 0..2 {
        let unwritten = sale.order([1, 0]);
        assert!(matches!(sale.reserve(&unwritten).await, Outcome::Reserved(_)));
        eventually("it was looked for", || async { (sale.in_ledger(&unwritten).await == 0).then_some(()) }).await;
    }
    assert_eq!(reached(&sale).await, Some(before));
    // As if its clock had been wrong: no turn is that long.
    next_turn_at(&sale, i64::MAX).await;
    let after = eventually("the walk goes on", || async {
        let after = reached(&sale).await;
        (after != Some(before)).then_some(after)
    })
    .await;
    assert!(after.is_none_or(|after| after > before), "it was at {before}, and is at {after:?}");
    sale.mesh.stop().await.unwrap();
}
