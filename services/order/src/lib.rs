//! The order service: takes orders and leads each to an end.
//!
//! An order is taken by `PlaceOrder`: its units are held by inventory and its coupon by the coupon service, then it is
//! written with the news of it in one transaction, together with its neighbours. From there on it is moved by what the
//! others answer over Kafka (the ledger has its units or has not, its payment was approved, declined or refunded), by
//! its buyer (pay, cancel), by an operator (refund) and by time alone (the deadline sweep). All of them go the same
//! way: a batch of orders is locked, the domain decides what becomes of each, and states, goods and news are written
//! in one transaction (`usecase/transitions.rs`).
//!
//! The service has no Redis and never asks another service inside a transaction.

mod client;
mod config;
mod domain;
mod rpc;
mod store;
mod usecase;
mod wire;
mod worker;

pub use config::Config;

use client::{Coupons, Inventory};
use domain::Terms;
use rpc::OrderRpc;
use stampede_chassis::{Grpc, Mesh, Stage, Workers, wait_for};
use stampede_db::{Database, DbConfig, schema};
use stampede_inbox::{Consumer, ConsumerConfig};
use stampede_outbox::{Outbox, Relay, RelayConfig, reach_kafka};
use stampede_proto::order::v1::order_service_server::OrderServiceServer;
use stampede_vocab::{SharedClock, SystemClock, Topic};
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use usecase::{ChangeOrder, ExpireOrders, FindOrder, ListOrders, PlaceOrder, Transitions, WatchOrder, WriteOrders};
use worker::Answers;

/// Builds the service: connects, starts the workers, and returns the RPCs to serve. Fails if the database or Kafka does
/// not answer in time, or the schema does not fit this program.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let db = connect(&config).await?;
    let clock: SharedClock = Arc::new(SystemClock);
    let topic = Topic::Order.name(&config.kafka_topic_prefix);
    wait_for("Kafka", config.common.wait_for_servers(), || reach_kafka(&config.kafka_brokers, &topic)).await?;
    let outbox = start_relay(&config, topic, &workers, &db)?;
    let transitions = Transitions::new(db.clone(), outbox.clone(), clock.clone(), config.terms());
    start_consumer(&config, &workers, &db, &transitions)?;
    let expire = ExpireOrders::new(db.clone(), clock.clone(), config.terms(), transitions.clone());
    let period = config.sweep_interval();
    workers.spawn(Stage::Consumer, "deadline sweep", move |stop| worker::sweep(expire, period, stop));

    let find = FindOrder::new(db.clone());
    let inventory = Inventory::new(Mesh::connect(&config.inventory_urls, "inventory"));
    let coupons = Coupons::new(Mesh::connect(&config.coupon_urls, "coupon"));
    let write = WriteOrders::new(db.clone(), outbox);
    let rpc = OrderRpc {
        place: PlaceOrder::new(inventory, coupons, find.clone(), write, clock, config.order_write_limit()),
        change: ChangeOrder::new(transitions),
        list: ListOrders::new(db.clone()),
        watch: WatchOrder::new(db, find.clone(), config.watch_interval()),
        find,
    };
    let routes = Routes::new(OrderServiceServer::new(rpc));
    Ok(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &["stampede.order.v1.OrderService"]))
}

async fn connect(config: &Config) -> anyhow::Result<Database> {
    let pool = DbConfig { max_connections: config.database_max_connections, ..DbConfig::default() };
    let db = wait_for("the order database", config.common.wait_for_servers(), || {
        Database::connect(&config.database_url, pool)
    })
    .await?;
    db.check_schema(&schema::ORDER).await?;
    Ok(db)
}

fn start_relay(config: &Config, topic: String, workers: &Workers, db: &Database) -> anyhow::Result<Outbox> {
    let relay = RelayConfig::new(&config.kafka_brokers, topic, "/stampede/order");
    let (outbox, relay) = Relay::new(relay, db.clone())?;
    workers.spawn(Stage::Relay, "relay", |stop| async move {
        relay.run(stop).await;
        Ok(())
    });
    Ok(outbox)
}

fn start_consumer(config: &Config, workers: &Workers, db: &Database, transitions: &Transitions) -> anyhow::Result<()> {
    let consumer = ConsumerConfig::new(&config.kafka_brokers, &config.kafka_topic_prefix, "order");
    let consumer = Consumer::new(consumer, db.clone(), Arc::new(Answers::new(transitions.clone())))?;
    workers.spawn(Stage::Consumer, "consumer of inventory and payment", |stop| async move {
        consumer.run(stop).await;
        Ok(())
    });
    Ok(())
}

impl Config {
    fn terms(&self) -> Terms {
        Terms {
            pay_window: Duration::from_millis(self.pay_window_ms),
            paying_grace: Duration::from_millis(self.paying_grace_ms),
        }
    }
}
