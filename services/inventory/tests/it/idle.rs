//! What has nothing to do costs nothing, and is there all the same.

use crate::{
    sale::{A_FEW_ROUNDS, Sale, level, seconds_from_now},
    tables::{Behind, plan_events},
};
use stampede_lua::{
    Redis, RedisConfig,
    stock::{Decision, InLedger, Reservation, Stock, WantedLine},
};
use stampede_proto::inventory::v1::{self as proto, RefusalReason};
use stampede_testkit::{OwnRedis, as_operator, eventually};
use stampede_vocab::{Fingerprint, Quantity};

/// Waits until every event was compared on this run of the server.
async fn all_compared(redis: &OwnRedis, sale: &Sale) {
    eventually("the pass over all events is done", || async {
        let pass = Behind::of(sale, &redis.admin_url(), 1).await.pass().await;
        (pass.as_deref() == Some("done")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_of_next_year_cost_no_script_and_a_hold_of_today_is_swept() {
    let redis = OwnRedis::start(&[]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    all_compared(&redis, &sale).await;
    plan_events(&sale, 20_000).await;

    let mut behind = Behind::of(&sale, &redis.admin_url(), 1).await;
    behind.begin_to_count().await;
    let mut scripts = 0;
    for _ in 0..60 {
        tokio::time::sleep(A_FEW_ROUNDS).await;
        scripts = behind.count_of("evalsha").await;
        // Where the machine stands still meanwhile there is no round.
        if scripts >= 3 {
            break;
        }
    }
    assert!((3..1_000).contains(&scripts), "{scripts} scripts in a few rounds over one event");

    // Granted, and whoever was to commit it is gone.
    let key_prefix = sale.world.redis_key_prefix();
    let stock = Stock::new(Redis::connect(RedisConfig { url: redis.url(), key_prefix }).await.unwrap());
    let order = sale.order([0, 1]);
    let line = WantedLine { item_id: sale.item(1), units: Quantity::new(1).unwrap() };
    let reservation = Reservation {
        order_id: order.order_id,
        user_id: order.buyer,
        fingerprint: Fingerprint::new([1; 32]),
        ledger: InLedger::Absent,
        lines: vec![line],
    };
    let decision = stock.reserve(sale.event_id, &[reservation]).await.unwrap().remove(0).unwrap();
    assert!(matches!(decision, Decision::Held(_)), "{decision:?}");
    sale.stock_becomes(1, level(3, 0, 0)).await;
}

#[tokio::test]
async fn every_event_of_next_year_comes_back_after_a_loss() {
    let redis = OwnRedis::start(&[]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    all_compared(&redis, &sale).await;
    plan_events(&sale, 500).await;
    redis.empty().await.unwrap();
    // Each has a key, and so has its item.
    eventually("all events are staged", || async { (redis.keys().await.ok()? >= 1_000).then_some(()) }).await;
    all_compared(&redis, &sale).await;
}

#[tokio::test]
async fn one_event_of_next_year_that_was_lost_comes_back_when_somebody_asks() {
    let redis = OwnRedis::start(&[]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    all_compared(&redis, &sale).await;
    let next_year = proto::StageStockRequest {
        open_time: Some(seconds_from_now(365 * 86_400)),
        close_time: Some(seconds_from_now(366 * 86_400)),
        ..sale.shelf(2)
    };
    sale.api().stage_stock(as_operator(next_year)).await.unwrap();
    assert_eq!(sale.refusal(&sale.order([0, 1])).await, (RefusalReason::EventNotOpen, 0));
    let mut behind = Behind::of(&sale, &redis.admin_url(), 1).await;
    behind.lose_item().await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
}
