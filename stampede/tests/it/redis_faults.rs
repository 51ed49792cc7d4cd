//! A small sale whose Redis loses data: all of it, its last seconds, everything since an old copy, writes that its
//! replica did not have; and the audit after. The timers of events are on a healthy Redis.

use crate::{
    crowd::{Crowd, Orders},
    sale::{eur, fresh, in_us},
};
use stampede_lua::{Redis, RedisConfig, coupon};
use stampede_proto::coupon::v1::{Campaign, ClaimCouponRequest, CreateCampaignRequest};
use stampede_testkit::{
    FloatingAddress, Mesh, MeshBuilder, OwnRedis, Process, Service, World, as_buyer, as_operator, buyer, eventually,
    heavy,
};
use stampede_vocab::{CampaignId, RedisUse};
use std::time::Duration;
use tokio::time::sleep;

/// The sale: claims and orders go on for longer than the faults. There are kettles for everybody, so that SOLD_OUT for
/// one is an anomaly, and few lamps.
const SALE: &str = r#"
name = "A sale on a Redis that forgets"
opens_in_ms = 4_000
lasts_ms = 36_000
pay_window_ms = 8_000

[[items]]
title = "Kettle"
price = { minor_units = 1_999, currency = "EUR" }
units = 1_500
limit_per_buyer = 2
gift = { title = "Mug", units = 20 }

[[items]]
title = "Lamp"
price = { minor_units = 4_999, currency = "EUR" }
units = 60
limit_per_buyer = 1

[campaign]
name = "Ten off"
quota = 600
discount = { minor_units = 1_000, currency = "EUR" }
opens_before_ms = 1_000
spread_ms = 34_000

[crowd]
buyers = 640
spread_ms = 32_000
double_clickers_percent = 5
early_birds_percent = 5
cut_connections_percent = 5
over_limit_percent = 5
come_back_percent = 10
abandon_percent = 5
cancel_percent = 5
declined_cards_percent = 10
timed_out_cards_percent = 3
"#;
/// That of the sale.
const PAY_WINDOW_MS: u32 = 8_000;

/// A server that may lose its last second, as Redis is set up by default.
const DURABLE: [(&str, &str); 2] = [("appendonly", "yes"), ("appendfsync", "everysec")];
/// The time whose writes are lost.
const LOST: Duration = Duration::from_secs(2);
/// Time for which a master is a replica before clients are forwarded to another one.
const DEMOTED_FOR: Duration = Duration::from_millis(300);
/// Orders that have to be accepted between two faults, and the time for them: a buyer refused during one needs another
/// chance before the next.
const ORDERS_BETWEEN: i64 = 10;
const TIME_BETWEEN: Duration = Duration::from_secs(1);

/// A mesh whose stock, coupons and tokens are in the Redis at this URL.
pub fn on_redis(url: &str) -> MeshBuilder {
    let processes = Process::all().filter(|process| process.redis() == Some(RedisUse::Main));
    processes.fold(MeshBuilder::default(), |mesh, process| mesh.set(process, "STAMPEDE_REDIS_URL", url))
}

/// Waits until orders have been accepted for a while.
async fn go_on(orders: &Orders) {
    orders.until_placed(orders.placed().await + ORDERS_BETWEEN).await;
    sleep(TIME_BETWEEN).await;
}

/// A replica of `master`, in sync.
async fn replica_of(master: &OwnRedis) -> OwnRedis {
    let replica = OwnRedis::start(&DURABLE).await.unwrap();
    replica.follow(master).await.unwrap();
    replica
}

/// The master dies, and its replica takes its place.
async fn fail_over(master: OwnRedis, address: &FloatingAddress) -> OwnRedis {
    let replica = replica_of(&master).await;
    drop(master);
    replica.promote().await.unwrap();
    address.move_to(replica.address());
    replica
}

/// The master is made a replica of its replica and keeps its connections, which are of no use from then on. It loses
/// the writes that it got since the other was promoted.
async fn switch_over(master: &OwnRedis, address: &FloatingAddress) -> OwnRedis {
    let replica = replica_of(master).await;
    replica.promote().await.unwrap();
    master.follow(&replica).await.unwrap();
    sleep(DEMOTED_FOR).await;
    address.move_to(replica.address());
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_keeps_its_promises_while_its_redis_loses_what_it_has() {
    let _permit = heavy().await;
    let world = World::prepared().await.unwrap();
    let redis = OwnRedis::start(&DURABLE).await.unwrap();
    let address = FloatingAddress::leading_to(redis.address()).await.unwrap();
    let url = redis.url().replace(&redis.address().to_string(), &address.address().to_string());
    let mesh = on_redis(&url)
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", PAY_WINDOW_MS)
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 500)
        .start(&world, Process::all())
        .await
        .unwrap();
    let crowd = Crowd::come(SALE, &mesh);
    let orders = Orders::of(&world).await;

    // The stock is staged, and hardly anything is sold.
    orders.until_placed(1).await;
    let old_copy = redis.copy().unwrap();
    go_on(&orders).await;
    redis.empty().await.unwrap();
    go_on(&orders).await;
    let redis = redis.restart_without_the_last(LOST).await.unwrap();
    go_on(&orders).await;
    let redis = redis.restart_with(old_copy).await.unwrap();
    go_on(&orders).await;
    let redis = fail_over(redis, &address).await;
    go_on(&orders).await;
    let _master = switch_over(&redis, &address).await;
    orders.until_placed(orders.placed().await + ORDERS_BETWEEN).await;

    crowd.goes_home_content(&world, &mesh, &["--redis-url", &url]).await;
    mesh.stop().await.unwrap();
}

/// A campaign that takes claims.
async fn campaign(mesh: &Mesh) -> Campaign {
    let request = CreateCampaignRequest {
        request_id: fresh(),
        name: "ten off".to_owned(),
        quota: 10,
        discount: eur(1_000),
        event_id: String::new(),
        open_time: in_us(Duration::ZERO),
        close_time: in_us(Duration::from_secs(600)),
    };
    mesh.coupon().create_campaign(as_operator(request)).await.unwrap().into_inner().campaign.unwrap()
}

async fn claim(mesh: &Mesh, campaign: &Campaign) {
    let user = buyer();
    eventually("the campaign takes claims", || async {
        let request = ClaimCouponRequest { campaign_id: campaign.campaign_id.clone(), request_id: "a".to_owned() };
        mesh.coupon().claim_coupon(as_buyer(user, request)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn ranks_that_an_old_copy_has_forgotten_are_known_again_though_nobody_claims() {
    let _permit = heavy().await;
    let world = World::prepared().await.unwrap();
    let redis = OwnRedis::durable().await.unwrap();
    let mesh = on_redis(&redis.url()).start(&world, [Service::Coupon]).await.unwrap();
    let campaign = campaign(&mesh).await;
    claim(&mesh, &campaign).await;
    let copy = redis.copy().unwrap();
    claim(&mesh, &campaign).await;

    let redis = redis.restart_with(copy).await.unwrap();
    let config = RedisConfig { url: redis.url(), key_prefix: world.redis_key_prefix() };
    let redis = Redis::connect(config).await.unwrap();
    let id: CampaignId = campaign.campaign_id.parse().unwrap();
    eventually("the next claim gets the next rank", || async {
        let progress = coupon::snapshot(&redis, id).await.ok()??;
        (progress.ready && progress.issued == 2).then_some(())
    })
    .await;
    mesh.stop().await.unwrap();
}
