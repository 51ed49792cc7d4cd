//! The inventory service: who gets units, decided in Redis in one step, and committed in the ledger, which is the truth.
//!
//! A reservation becomes a *hold* in Redis ([`usecase`], the scripts of `stampede_lua::stock`). When the order is
//! accepted, its message reaches the *ledger* consumer ([`worker`]): a whole batch is applied to what was read under
//! the lock of its items ([`domain`]) and written in one transaction with the answers; then the hold leaves Redis and
//! the committed units take its place. Redis may be lost at any moment: the ledger never commits more than there is,
//! and copies itself to Redis again.

pub mod client;
pub mod config;
pub mod domain;
mod rpc;
mod store;
pub mod usecase;
mod wire;
pub mod worker;

pub use config::Config;

use crate::{
    client::Orders,
    rpc::InventoryApi,
    usecase::{HoldAges, Inventory},
    worker::consumer::LedgerConsumer,
};
use stampede_chassis::{Grpc, Mesh, Stage, Workers, wait_for};
use stampede_db::{Database, DbConfig};
use stampede_inbox::{Consumer, ConsumerConfig};
use stampede_lua::{Redis, RedisConfig, stock::Stock};
use stampede_outbox::{Outbox, Relay, RelayConfig, reach_kafka};
use stampede_proto::inventory::v1::inventory_service_server::{InventoryServiceServer, SERVICE_NAME};
use stampede_vocab::{SystemClock, Topic};
use std::sync::Arc;
use tonic::service::Routes;

/// Connects to the servers, starts the workers and gives what is to be served.
///
/// Fails if a server does not answer in time, the schema does not fit this program, Redis is set up in a way in which stock
/// would be lost, or holds would be given back too early.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let ages = config.hold_ages()?;
    let db = connect_db(&config).await?;
    let redis = connect_redis(&config).await?;
    let topic = Topic::Inventory.name(&config.kafka_topic_prefix);
    wait_for("Kafka", config.common.wait_for_servers(), || reach_kafka(&config.kafka_brokers, &topic)).await?;
    let outbox = spawn_relay(&config, topic, &db, &workers)?;
    let inventory = Inventory::new(db.clone(), Stock::new(redis), outbox, Arc::new(SystemClock));
    spawn_consumer(&config, db, &inventory, &workers)?;
    spawn_sweeps(&config, ages, &inventory, &workers);

    let routes = Routes::new(InventoryServiceServer::new(InventoryApi::new(inventory)));
    Ok(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME]))
}

async fn connect_db(config: &Config) -> anyhow::Result<Database> {
    let connect = || Database::connect(&config.database_url, DbConfig::default());
    let db = wait_for("the inventory database", config.common.wait_for_servers(), connect).await?;
    db.check_schema(&stampede_db::schema::INVENTORY).await?;
    Ok(db)
}

async fn connect_redis(config: &Config) -> anyhow::Result<Redis> {
    let connect =
        || Redis::connect(RedisConfig { url: config.redis_url.clone(), key_prefix: config.redis_key_prefix.clone() });
    let redis = wait_for("the Redis of the stock", config.common.wait_for_servers(), connect).await?;
    redis.require_noeviction().await?;
    Ok(redis)
}

fn spawn_relay(config: &Config, topic: String, db: &Database, workers: &Workers) -> anyhow::Result<Outbox> {
    let relay_config = RelayConfig::new(&config.kafka_brokers, topic, "/stampede/inventory");
    let (outbox, relay) = Relay::new(relay_config, db.clone())?;
    workers.spawn(Stage::Relay, "relay", move |stop| async move {
        relay.run(stop).await;
        Ok(())
    });
    Ok(outbox)
}

fn spawn_consumer(config: &Config, db: Database, inventory: &Inventory, workers: &Workers) -> anyhow::Result<()> {
    let handler = Arc::new(LedgerConsumer::new(inventory.clone()));
    let consumed = ConsumerConfig::new(&config.kafka_brokers, &config.kafka_topic_prefix, "inventory");
    let consumer = Consumer::new(consumed, db, handler)?;
    workers.spawn(Stage::Consumer, "ledger consumer", move |stop| async move {
        consumer.run(stop).await;
        Ok(())
    });
    Ok(())
}

fn spawn_sweeps(config: &Config, ages: HoldAges, inventory: &Inventory, workers: &Workers) {
    let orders = Orders::new(Mesh::connect(&config.order_urls, "order"));
    let (swept, sweep_interval) = (inventory.clone(), config.sweep_interval());
    workers.spawn(Stage::Consumer, "orphan sweep", move |stop| {
        worker::sweep::run(swept, orders, ages, sweep_interval, stop)
    });
    let measured = inventory.clone();
    workers.spawn(Stage::Consumer, "stock gauges", move |stop| worker::gauges::run(measured, stop));
    let (reconciled, interval) = (inventory.clone(), config.reconcile_interval());
    workers.spawn(Stage::Consumer, "reconciler", move |stop| worker::reconcile::run(reconciled, interval, stop));
}
