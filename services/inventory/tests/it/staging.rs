//! What opens soon is checked to be staged, ahead of its opening and at it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    sale::{Sale, level, quick, retire, seconds_from_now},
    tables::Behind,
};
use redis::AsyncCommands;
use stampede_lua::Keys;
use stampede_proto::inventory::v1 as proto;
use stampede_testkit::{Service, as_operator, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;

const HOUR_S: i64 = 3_600;
/// Names of the metrics.
const UNSTAGED: &str = "stampede_stock_unstaged_events";
const FAILURES: &str = "stampede_stock_staging_failures_total";

/// The number of a series of this stage on the page of metrics; none while there is no such series.
async fn metric(sale: &Sale, name: &str, stage: &str) -> Option<f64> {
    series(sale, name, &format!("stage=\"{stage}\"")).await
}

/// The number of the first series of this name that has this text among its labels; none while there is no such series.
pub async fn series(sale: &Sale, name: &str, label: &str) -> Option<f64> {
    let metrics = sale.mesh.metrics(Service::Inventory).await.unwrap();
    metrics.values(name, &[label]).first().copied()
}

async fn metric_becomes(sale: &Sale, name: &str, stage: &str, expected: f64) {
    eventually(&format!("{name} of {stage} is {expected}"), || async {
        (metric(sale, name, stage).await == Some(expected)).then_some(())
    })
    .await;
}

/// Stages the event far ahead of its opening, where nobody looks once all events were compared, and loses an item of
/// it.
async fn stage_and_lose(sale: &Sale) {
    let url = sale.world.admin_redis_url();
    eventually("the pass over all events is done", || async {
        let pass = Behind::of(sale, url, 1).await.pass().await;
        (pass.as_deref() == Some("done")).then_some(())
    })
    .await;
    let shelf = proto::StageStockRequest {
        open_time: Some(seconds_from_now(5 * HOUR_S)),
        close_time: Some(seconds_from_now(6 * HOUR_S)),
        ..sale.shelf(1)
    };
    sale.api().stage_stock(as_operator(shelf)).await.unwrap();
    Behind::of(sale, url, 1).await.lose_item().await;
}

/// Moves the opening by the ledger alone: nobody stages the event on the way.
async fn opens_in(sale: &Sale, seconds: i64) {
    let opens_at_us = Timestamp::now().micros() + seconds * 1_000_000;
    let moved = sqlx::query("UPDATE stock SET opens_at_us = ? WHERE event_id = ?");
    let moved = moved.bind(opens_at_us).bind(sale.event_id.uuid());
    moved.execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_event_that_is_not_staged_before_its_opening_is_counted_until_it_is() {
    // Nobody repairs it but an operator.
    let mesh = quick().set(Service::Inventory, "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS", 600_000);
    let sale = Sale::with(mesh, &[]).await;
    metric_becomes(&sale, FAILURES, "ahead", 0.0).await;
    stage_and_lose(&sale).await;
    opens_in(&sale, 50).await;
    metric_becomes(&sale, UNSTAGED, "ahead", 1.0).await;
    opens_in(&sale, 0).await;
    metric_becomes(&sale, UNSTAGED, "open", 1.0).await;
    assert_eq!(metric(&sale, UNSTAGED, "ahead").await, Some(0.0));
    for stage in ["ahead", "open"] {
        assert_eq!(metric(&sale, FAILURES, stage).await, Some(1.0), "{stage}");
    }
    let reconcile = proto::ReconcileRequest { event_id: sale.event_id.to_string() };
    sale.api().reconcile(as_operator(reconcile)).await.unwrap();
    metric_becomes(&sale, UNSTAGED, "open", 0.0).await;
}

#[tokio::test]
async fn an_event_that_is_lost_far_ahead_of_its_opening_is_staged_by_the_check() {
    let mesh = quick().set(Service::Inventory, "STAMPEDE_INVENTORY_STAGING_LEAD_MS", 3 * HOUR_S * 1_000);
    let sale = Sale::with(mesh, &[]).await;
    stage_and_lose(&sale).await;
    // Neither the rounds of the reconciler nor the gauges look so far ahead.
    opens_in(&sale, 2 * HOUR_S).await;
    eventually("the item is back", || async {
        Behind::of(&sale, sale.world.admin_redis_url(), 1).await.field("total").await
    })
    .await;
    metric_becomes(&sale, FAILURES, "ahead", 1.0).await;
}

#[tokio::test]
async fn an_event_that_is_newer_in_redis_is_not_answered_as_staged_and_is_staged_once_it_is_distrusted() {
    let sale = Sale::open().await;
    let event = Keys::new(sale.world.redis_key_prefix()).stock_event(sale.event_id);
    let mut redis = sale.world.admin_redis().await.unwrap();
    // As after the ledger was restored to before the event was moved.
    let () = redis.hset(&event, "version", 9).await.unwrap();
    Behind::of(&sale, sale.world.admin_redis_url(), 1).await.lose_item().await;

    let reconcile = || as_operator(proto::ReconcileRequest { event_id: sale.event_id.to_string() });
    let mut impatient = reconcile();
    impatient.set_timeout(Duration::from_secs(1));
    sale.api().reconcile(impatient).await.expect_err("the item is not there");
    let () = redis.hdel(&event, "run_id").await.unwrap();
    sale.api().reconcile(reconcile()).await.unwrap();
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn what_waits_to_be_staged_is_though_items_cannot_be_marked_as_over() {
    let mut sale = Sale::open().await;
    let over = sale.event_id;
    sale.begin_another().await;
    let refuse = "ALTER TABLE stock ADD CONSTRAINT ck_test CHECK (is_over = FALSE)";
    sqlx::raw_sql(refuse).execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
    retire(&sale.inventory_db, over).await;
    // Two rounds have to find it.
    let wait = sqlx::query("INSERT INTO restages (event_id, event_version) VALUES (?, 1)").bind(sale.event_id.uuid());
    wait.execute(&mut *sale.inventory_db.acquire().await.unwrap()).await.unwrap();
    eventually("the event is staged", || async {
        let mut conn = sale.inventory_db.acquire().await.ok()?;
        let waiting: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM restages").fetch_one(&mut *conn).await.ok()?;
        (waiting == 0).then_some(())
    })
    .await;
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let marked: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM stock WHERE is_over").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(marked, 0, "the database has refused it each time");
    drop(conn);
    sale.mesh.stop().await.unwrap();
}
