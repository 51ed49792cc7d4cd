//! A sale whose one process of the inventory can be stopped at any write to its servers, and killed there.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    event_keys::EventKeys,
    sale::{Order, Sale, prepared, quick},
};
use redis::AsyncCommands;
use stampede_lua::{
    Redis, RedisConfig,
    stock::{Decision, InLedger, Reservation, Stock, WantedLine},
};
use stampede_testkit::{AdminRedis, FreezeAt, MeshBuilder, OwnRedis, Proxy, Service};
use stampede_vocab::{Fingerprint, ItemId, Quantity};

/// The sale, what stands between the process and its servers, and the test's own way to Redis. That is a server of the
/// test's own: nobody can stand in front of every node of a cluster.
pub struct Stand {
    pub sale: Sale,
    pub mysql: Proxy,
    pub redis: Proxy,
    pub stock: Stock,
    /// What is behind the proxy.
    pub server: OwnRedis,
    direct: Redis,
    conn: AdminRedis,
}

impl Stand {
    pub async fn new() -> Self {
        Self::with(quick(), &[]).await
    }

    /// The same with these settings, and more services than inventory.
    pub async fn with(mesh: MeshBuilder, others: &[Service]) -> Self {
        let world = prepared().await;
        let mysql = Proxy::to_url(&world.service_database_url(Service::Inventory)).await.unwrap();
        let server = OwnRedis::start(&[]).await.unwrap();
        let redis = Proxy::to_url(&server.url()).await.unwrap();
        let mesh = mesh.set(Service::Inventory, "STAMPEDE_DATABASE_URL", mysql.url()).set(
            Service::Inventory,
            "STAMPEDE_REDIS_URL",
            redis.url(),
        );
        let key_prefix = world.redis_key_prefix();
        let direct = Redis::connect(RedisConfig { url: server.url(), key_prefix }).await.unwrap();
        Self {
            sale: Sale::in_world(world, mesh, others).await,
            mysql,
            redis,
            stock: Stock::new(direct.clone()),
            direct,
            conn: AdminRedis::connect(&server.admin_url()).await.unwrap(),
            server,
        }
    }

    /// The process dies where it stands, and is started again.
    pub async fn dies(&mut self) {
        self.sale.mesh.kill_9(Service::Inventory).unwrap();
        self.mysql.cut();
        self.redis.cut();
        self.sale.mesh.restart(Service::Inventory).await.unwrap();
    }

    /// Whether Redis has units on hold for the order.
    pub async fn is_held(&self, order: &Order) -> bool {
        let holds = self.direct.keys().stock_holds(order.event_id);
        self.conn.clone().hexists(holds, order.order_id.to_string()).await.unwrap()
    }

    /// Writes the hold of an order from behind, past the script.
    pub async fn write_hold(&self, order: &Order, packed: &str) {
        let holds = self.direct.keys().stock_holds(order.event_id);
        let () = self.conn.clone().hset(holds, order.order_id.to_string(), packed).await.unwrap();
    }

    /// The script grants an order, and nobody takes it to the ledger.
    pub async fn is_granted_and_forgotten(&self, order: &Order) {
        let mut decisions = self.stock.reserve(order.event_id, &[as_the_script_takes_it(order)]).await.unwrap();
        // A sweep may have dropped it by now, so Redis is not asked again.
        let decision = decisions.remove(0).unwrap();
        assert!(matches!(decision, Decision::Held(_)), "{decision:?}");
    }

    /// The keys of the event that is sold now.
    pub fn event_keys(&self) -> EventKeys {
        EventKeys::new(self.conn.clone(), self.direct.keys(), self.sale.event_id, 2)
    }
}

/// The reservation of an order that the ledger does not have.
pub fn as_the_script_takes_it(order: &Order) -> Reservation {
    let line = |(item_id, units): &(ItemId, i32)| WantedLine {
        item_id: *item_id,
        units: Quantity::new(i64::from(*units)).unwrap(),
    };
    Reservation {
        order_id: order.order_id,
        user_id: order.buyer,
        fingerprint: Fingerprint::new([1; 32]),
        ledger: InLedger::Absent,
        lines: order.lines.iter().map(line).collect(),
    }
}

/// Before the first write, after it, before the second one, and so on.
pub fn each_side_of_a_write(step: usize) -> FreezeAt {
    let number = step / 2 + 1;
    if step.is_multiple_of(2) { FreezeAt::Before(number) } else { FreezeAt::After(number) }
}
