//! A small sale on a Redis Cluster that loses the master of the event in the middle of it, and then moves its slot, and
//! the audit after. The timers of events are on a healthy Redis.

use crate::{
    crowd::{Crowd, Orders},
    lost_redis::on_redis,
};
use stampede_lua::Keys;
use stampede_testkit::{OwnCluster, Process, Service, World, heavy};

/// The sale: orders and claims go on for longer than a replica takes to be the master, and a slot to move. There are
/// kettles for everybody, so that SOLD_OUT for one is an anomaly, and few lamps.
const SALE: &str = r#"
name = "A sale on a cluster that changes"
opens_in_ms = 4_000
lasts_ms = 17_000
pay_window_ms = 8_000

[[items]]
title = "Kettle"
price = { minor_units = 1_999, currency = "EUR" }
units = 600
limit_per_buyer = 2
gift = { title = "Mug", units = 20 }

[[items]]
title = "Lamp"
price = { minor_units = 4_999, currency = "EUR" }
units = 20
limit_per_buyer = 1

[campaign]
name = "Ten off"
quota = 220
discount = { minor_units = 1_000, currency = "EUR" }
opens_before_ms = 1_000
spread_ms = 13_000

[crowd]
buyers = 260
spread_ms = 13_000
double_clickers_percent = 5
early_birds_percent = 5
cut_connections_percent = 5
over_limit_percent = 5
come_back_percent = 10
abandon_percent = 5
cancel_percent = 5
declined_cards_percent = 10
"#;
/// That of the sale.
const PAY_WINDOW_MS: u32 = 8_000;
/// Orders before the master is lost, and after each change.
const ORDERS_BEFORE: i64 = 10;
const ORDERS_AFTER: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_keeps_its_promises_while_the_master_of_its_event_is_lost_and_its_slot_moves() {
    let _permit = heavy().await;
    let (world, cluster) = tokio::join!(World::prepared(), OwnCluster::start());
    let (world, mut cluster) = (world.unwrap(), cluster.unwrap());
    let mesh = on_redis(&cluster.url())
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", PAY_WINDOW_MS)
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 500)
        .start(&world, Process::all())
        .await
        .unwrap();
    let crowd = Crowd::come(SALE, &mesh);
    let orders = Orders::of(&world).await;

    orders.until_placed(ORDERS_BEFORE).await;
    let key = Keys::new(world.redis_key_prefix()).stock_event(orders.event().await);
    let killed = cluster.master_of(&key).await.unwrap();
    cluster.kill_master_of(&key).await.unwrap();
    orders.until_placed(orders.placed().await + ORDERS_AFTER).await;
    let left = cluster.master_of(&key).await.unwrap();
    assert_ne!(left, killed, "the sale went on at another master");
    cluster.move_slot_of(&key).await.unwrap();
    orders.until_placed(orders.placed().await + ORDERS_AFTER).await;
    assert_ne!(cluster.master_of(&key).await.unwrap(), left, "the sale went on where the slot is now");

    crowd.goes_home_content(&world, &mesh, &["--redis-url", &cluster.url()]).await;
    mesh.stop().await.unwrap();
}
