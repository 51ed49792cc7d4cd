//! Small sales whose Redis loses data in the middle: all of it, its last seconds, everything since an earlier copy,
//! writes that its replica did not have; and the audit after each. The timers of events are on a healthy Redis.

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

/// The sale: its crowd still comes when the fault strikes. There are kettles for everybody, so that SOLD_OUT for one is
/// an anomaly, and few lamps. No order is left to its deadline, so that the audit begins soon.
const SALE: &str = r#"
name = "A sale on a Redis that forgets"
opens_in_ms = 3_000
lasts_ms = 7_000
pay_window_ms = 8_000

[[items]]
title = "Kettle"
price = { minor_units = 1_999, currency = "EUR" }
units = 240
limit_per_buyer = 2
gift = { title = "Mug", units = 20 }

[[items]]
title = "Lamp"
price = { minor_units = 4_999, currency = "EUR" }
units = 10
limit_per_buyer = 1

[campaign]
name = "Ten off"
quota = 93
discount = { minor_units = 1_000, currency = "EUR" }
opens_before_ms = 1_000
spread_ms = 4_000

[crowd]
buyers = 100
spread_ms = 4_000
double_clickers_percent = 5
early_birds_percent = 5
cut_connections_percent = 5
over_limit_percent = 5
cancel_percent = 5
declined_cards_percent = 10
timed_out_cards_percent = 3
"#;
/// That of the sale.
const PAY_WINDOW_MS: u32 = 8_000;
/// Time for which the provider keeps a late card pending, in milliseconds: the crowd waits for it too.
const PROVIDER_LATE_MS: u32 = 1_000;

/// A server that may lose its last second, as Redis is set up by default, and that publishes expired timers.
pub const DURABLE: [(&str, &str); 3] =
    [("appendonly", "yes"), ("appendfsync", "everysec"), ("notify-keyspace-events", "Ex")];
/// The time whose writes are lost.
const LOST: Duration = Duration::from_secs(2);
/// Time for which a master is a replica before clients are forwarded to another one.
const DEMOTED_FOR: Duration = Duration::from_millis(300);
/// Orders that are accepted before a fault: a tenth of the crowd's.
const ORDERS_BEFORE: i64 = 10;
/// Milliseconds between two comparisons of Redis with the ledger, so that a short sale goes on after a fault.
const RECONCILE_INTERVAL_MS: u32 = 500;

/// What happens to Redis in the middle of a sale.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Emptied,
    /// By a power cut.
    WithoutItsLastSeconds,
    /// An earlier copy is restored.
    RolledBack,
    /// Its master dies.
    FailedOver,
    /// Its master is demoted, and lives on.
    SwitchedOver,
}

impl Fault {
    /// Starts the replica of this server that is to take its place, if one is: the fault itself is short then.
    async fn replica(self, redis: &OwnRedis) -> Option<OwnRedis> {
        match self {
            Self::Emptied | Self::WithoutItsLastSeconds | Self::RolledBack => None,
            Self::FailedOver | Self::SwitchedOver => Some(replica_of(redis).await),
        }
    }

    /// Strikes this server. Returns the one that is the master then, and a former one that lives on.
    async fn strike(
        self,
        (redis, replica): (OwnRedis, Option<OwnRedis>),
        address: &FloatingAddress,
        orders: &Orders,
    ) -> (OwnRedis, Option<OwnRedis>) {
        match self {
            Self::Emptied => {
                redis.empty().await.unwrap();
                (redis, None)
            }
            Self::WithoutItsLastSeconds => (redis.restart_without_the_last(LOST).await.unwrap(), None),
            Self::RolledBack => {
                let earlier_copy = redis.copy().unwrap();
                go_on(orders).await;
                (redis.restart_with(earlier_copy).await.unwrap(), None)
            }
            Self::FailedOver => (fail_over(redis, replica.unwrap(), address).await, None),
            Self::SwitchedOver => (switch_over(&redis, replica.unwrap(), address).await, Some(redis)),
        }
    }
}

/// A mesh whose stock, coupons and tokens are in the Redis at this URL.
pub fn on_redis(url: &str) -> MeshBuilder {
    let processes = Process::all().filter(|process| process.redis() == Some(RedisUse::Main));
    processes.fold(MeshBuilder::default(), |mesh, process| mesh.set(process, "STAMPEDE_REDIS_URL", url))
}

/// The URL of this Redis through an address that other servers may take over from it.
pub fn through(address: &FloatingAddress, redis: &OwnRedis) -> String {
    redis.url().replace(&redis.address().to_string(), &address.address().to_string())
}

/// Waits until more orders have been accepted.
async fn go_on(orders: &Orders) {
    orders.until_placed(orders.placed().await + ORDERS_BEFORE).await;
}

/// A replica of `master`, in sync.
pub async fn replica_of(master: &OwnRedis) -> OwnRedis {
    let replica = OwnRedis::start(&DURABLE).await.unwrap();
    replica.follow(master).await.unwrap();
    replica
}

/// The master dies, and its replica takes its place.
async fn fail_over(master: OwnRedis, replica: OwnRedis, address: &FloatingAddress) -> OwnRedis {
    drop(master);
    replica.promote().await.unwrap();
    address.move_to(replica.address());
    replica
}

/// The master is made a replica of its replica and keeps its connections, which are of no use from then on. It loses
/// the writes that it got since the other was promoted.
pub async fn switch_over(master: &OwnRedis, replica: OwnRedis, address: &FloatingAddress) -> OwnRedis {
    replica.promote().await.unwrap();
    master.follow(&replica).await.unwrap();
    sleep(DEMOTED_FOR).await;
    address.move_to(replica.address());
    replica
}

/// Runs a sale for each of these faults, one after the other on one mesh with a Redis of its own. Checks that the crowd
/// sees nothing unexpected, and that every promise holds.
async fn survives(faults: &[Fault]) {
    let _permit = heavy().await;
    let (world, redis) = tokio::join!(World::prepared(), OwnRedis::start(&DURABLE));
    let (world, mut redis) = (world.unwrap(), redis.unwrap());
    let address = FloatingAddress::leading_to(redis.address()).await.unwrap();
    let url = through(&address, &redis);
    let mesh = on_redis(&url)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS", RECONCILE_INTERVAL_MS)
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", PAY_WINDOW_MS)
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 500)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", PROVIDER_LATE_MS)
        .start(&world, Process::all())
        .await
        .unwrap();
    let orders = Orders::of(&world).await;
    for fault in faults {
        println!("{fault:?}");
        let crowd = Crowd::come(SALE, &mesh);
        let replica = fault.replica(&redis).await;
        go_on(&orders).await;
        let placed_before = orders.placed().await;
        let (master, _former) = fault.strike((redis, replica), &address, &orders).await;
        crowd.goes_home_content(&world, &mesh, &["--redis-url", &url]).await;
        assert!(orders.placed().await > placed_before, "{fault:?} struck when the sale was over");
        redis = master;
    }
    mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_keeps_its_promises_while_its_redis_loses_what_it_has() {
    survives(&[Fault::Emptied, Fault::WithoutItsLastSeconds, Fault::RolledBack]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_keeps_its_promises_while_the_master_of_its_redis_changes() {
    survives(&[Fault::FailedOver, Fault::SwitchedOver]).await;
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
async fn ranks_that_an_earlier_copy_has_forgotten_are_known_again_though_nobody_claims() {
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
