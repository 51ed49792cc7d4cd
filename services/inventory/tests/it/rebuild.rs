//! An item of many buyers comes back after Redis has lost it, copied once, from where the copy was.
//!
//! `STAMPEDE_TEST_BUYERS=1000000` copies so many.

use crate::{
    sale::{Level, Sale, quick, seconds_from_now},
    stand::as_the_script_takes_it,
    tables::{Behind, buyer_of, copied_becomes, sell_to},
};
use stampede_lua::{
    Redis, RedisConfig,
    stock::{Decision, Stock},
};
use stampede_proto::inventory::v1::{RefusalReason, StageStockRequest};
use stampede_testkit::{OwnRedis, Service, as_operator, eventually, heavy};
use std::time::Instant;

/// Buyers of the item: 31 pages. The copy is seen under way in some of them, and one that is done twice makes more
/// writes than are let pass.
fn buyers() -> i64 {
    std::env::var("STAMPEDE_TEST_BUYERS").map_or(30_000, |count| count.parse().expect("a number"))
}

/// The last buyer that was copied, of a copy under way.
fn last_buyer(cursor: &str) -> Option<String> {
    let user = cursor.rsplit('|').next()?;
    user.starts_with("usr_").then(|| user.to_owned())
}

#[tokio::test]
async fn a_copy_that_was_cut_goes_on_where_it_was() {
    let _permit = heavy().await;
    let redis = OwnRedis::start(&[]).await.unwrap();
    let mut sale = Sale::on_redis(&redis).await;
    let mut behind = Behind::of(&sale, &redis.admin_url(), 1).await;
    sell_to(&sale, buyers()).await;
    copied_becomes(&sale, &mut behind, buyers()).await;

    redis.empty().await.unwrap();
    let emptied = Instant::now();
    let reached = loop {
        let cursor = behind.field("claim_cursor").await;
        if let Some(user) = cursor.as_deref().and_then(last_buyer) {
            break user;
        }
        // It was over before anybody looked.
        if cursor.as_deref() == Some("done") {
            redis.empty().await.unwrap();
        }
        assert!(emptied.elapsed().as_secs() < 60, "nobody saw the copy");
    };
    sale.mesh.kill_9(Service::Inventory).unwrap();
    sale.mesh.restart(Service::Inventory).await.unwrap();

    let started = Instant::now();
    while sale.stock(1).await.is_none() {
        if let Some(user) = behind.field("claim_cursor").await.as_deref().and_then(last_buyer) {
            assert!(user >= reached, "{user} is before {reached}");
        }
        assert!(started.elapsed().as_secs() < 300, "the item does not come back");
    }
    copied_becomes(&sale, &mut behind, buyers()).await;
    eprintln!("{} buyers were back {:?} after the restart", buyers(), started.elapsed());
    for version in [1, buyers() / 2, buyers()] {
        let user = buyer_of(&sale, version).await;
        assert!(behind.field(&format!("c:{user}")).await.unwrap().starts_with("1:"), "{user}");
    }
    // One unit is left; who has one may have no more.
    let first = sale.order([0, 1]);
    sale.reserved(&first).await;
    assert_eq!(sale.refusal(&sale.order([0, 1])).await, (RefusalReason::SoldOut, 0));
}

#[tokio::test]
async fn of_two_replicas_one_copies() {
    let _permit = heavy().await;
    let redis = OwnRedis::start(&[]).await.unwrap();
    let sale = Sale::replicated_on_redis(2, &redis).await;
    let mut behind = Behind::of(&sale, &redis.admin_url(), 1).await;
    sell_to(&sale, buyers()).await;
    copied_becomes(&sale, &mut behind, buyers()).await;

    behind.begin_to_count().await;
    redis.empty().await.unwrap();
    let started = Instant::now();
    copied_becomes(&sale, &mut behind, buyers()).await;
    eprintln!("{} buyers were back after {:?}", buyers(), started.elapsed());
    // A page of 1,000 is four writes: the item, its buyers in two parts, and how far it is.
    let pages = u64::try_from(buyers()).unwrap() / 1_000 + 1;
    let writes = behind.count_of("hset").await;
    assert!((3 * pages..5 * pages + 30).contains(&writes), "{writes} writes for {pages} pages");
}

#[tokio::test]
async fn of_a_change_that_did_not_come_only_its_buyers_are_copied() {
    let _permit = heavy().await;
    let redis = OwnRedis::start(&[]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    let mut behind = Behind::of(&sale, &redis.admin_url(), 1).await;
    sell_to(&sale, buyers()).await;
    copied_becomes(&sale, &mut behind, buyers()).await;

    let buyer = format!("c:{}", buyer_of(&sale, buyers()).await);
    let version = buyers().to_string();
    behind.begin_to_count().await;
    behind.set(&[(buyer.as_str(), "0:1"), ("stale_from", version.as_str()), ("stale_at", version.as_str())]).await;
    copied_becomes(&sale, &mut behind, buyers()).await;
    assert_eq!(behind.field(&buyer).await, Some(format!("1:{version}")));
    let writes = behind.count_of("hset").await;
    assert!(writes < 30, "{writes} writes for one buyer");
}

#[tokio::test]
async fn no_buyer_is_copied_when_an_event_is_cancelled_that_closed_a_week_ago() {
    const DAY_S: i64 = 86_400;
    let _permit = heavy().await;
    let redis = OwnRedis::start(&[]).await.unwrap();
    // No round copies anything beside the call.
    let mesh = quick().set(Service::Inventory, "STAMPEDE_REDIS_URL", redis.url()).set(
        Service::Inventory,
        "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS",
        600_000,
    );
    let sale = Sale::with(mesh, &[]).await;
    let last_week = |version| StageStockRequest {
        open_time: Some(seconds_from_now(-8 * DAY_S)),
        close_time: Some(seconds_from_now(-7 * DAY_S)),
        ..sale.shelf(version)
    };
    sale.api().stage_stock(as_operator(last_week(1))).await.unwrap();
    sell_to(&sale, buyers()).await;

    let mut behind = Behind::of(&sale, &redis.admin_url(), 1).await;
    behind.begin_to_count().await;
    let cancelled = StageStockRequest { cancel_time: Some(seconds_from_now(0)), ..last_week(2) };
    sale.api().stage_stock(as_operator(cancelled)).await.unwrap();
    let writes = behind.count_of("hset").await;
    assert_eq!(writes, 0, "for {} buyers", buyers());
    assert_eq!(behind.field("total").await, None, "redis keeps an item for a day");
    let all = i32::try_from(buyers()).unwrap();
    let sold = sale.stock(1).await;
    assert_eq!(sold.map(|level| level.committed), Some(all), "the ledger goes on showing it: {sold:?}");
    assert_eq!(sale.refusal(&sale.order([0, 1])).await, (RefusalReason::EventClosed, 0));
}

#[tokio::test]
async fn what_is_on_hold_without_a_hold_is_free_again() {
    let sale = Sale::open().await;
    let mut behind = Behind::of(&sale, sale.world.admin_redis_url(), 0).await;
    let order = sale.order([1, 0]);
    let user = format!("u:{}", order.buyer);
    behind.set(&[("held", "4"), ("gift_held", "2"), (user.as_str(), "2")]).await;
    eventually("the units are free again", || async {
        let level = sale.stock(0).await?;
        (level.held == 0 && level.left == 5 && level.left_gifts == 2).then_some(())
    })
    .await;
    behind.field_becomes(&user, None).await;
    sale.reserved(&sale.order([2, 0])).await;
    sale.reserved(&order).await;
}

#[tokio::test]
async fn what_is_on_hold_is_counted_while_another_hold_is_there() {
    // Nobody commits the hold, and nobody drops it.
    let mesh = quick().set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 3_600_000);
    let sale = Sale::with(mesh, &[]).await;
    sale.api().stage_stock(as_operator(sale.shelf(1))).await.unwrap();
    let (url, key_prefix) = (sale.world.redis_url().to_owned(), sale.world.redis_key_prefix());
    let stock = Stock::new(Redis::connect(RedisConfig { url, key_prefix }).await.unwrap());
    let (order, other) = (sale.order([2, 0]), sale.order([1, 0]));
    let decision = stock.reserve(sale.event_id, &[as_the_script_takes_it(&order)]).await.unwrap().remove(0).unwrap();
    assert!(matches!(decision, Decision::Held(_)), "{decision:?}");
    let right = Level { left: 3, committed: 0, held: 2, left_gifts: 1 };
    sale.stock_becomes(0, right).await;

    let mut behind = Behind::of(&sale, sale.world.admin_redis_url(), 0).await;
    let (holder, nobody) = (format!("u:{}", order.buyer), format!("u:{}", other.buyer));
    behind.set(&[("held", "5"), ("gift_held", "2"), (holder.as_str(), "1"), (nobody.as_str(), "2")]).await;
    sale.stock_becomes(0, right).await;
    behind.field_becomes(&holder, Some("2")).await;
    behind.field_becomes(&nobody, None).await;
    behind.field_becomes("uncounted", None).await;

    behind.set(&[("held", "0")]).await;
    behind.field_becomes("held", Some("2")).await;
    sale.reserved(&other).await;
}
