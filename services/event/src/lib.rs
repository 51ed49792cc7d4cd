//! The event service: a sale event opens and closes by itself, exactly once, never early.
//!
//! An operator creates an event with its items ([`usecase`]); the mesh hears of it through the outbox. Two workers
//! ([`worker`]) wait for its times. The *listener* hears from Redis that the event's timer has expired, the *due sweep*
//! sleeps until the time that stands in the database. Both end in one transaction that locks the event, opens it if it
//! is SCHEDULED and due, and writes the message: so any number of replicas, restarts and lost notifications open it
//! once, and the sweep alone would do.

pub mod config;
pub mod domain;
mod rpc;
mod store;
pub mod usecase;
mod wire;
pub mod worker;

pub use config::Config;

use crate::{rpc::EventApi, usecase::Events};
use anyhow::Context;
use stampede_chassis::{Grpc, Stage, Workers, wait_for};
use stampede_db::{Database, DbConfig};
use stampede_lua::{Redis, RedisConfig};
use stampede_outbox::{Outbox, Relay, RelayConfig, reach_kafka};
use stampede_proto::event::v1::event_service_server::{EventServiceServer, SERVICE_NAME};
use stampede_vocab::{SystemClock, Topic};
use std::sync::Arc;
use tonic::service::Routes;

/// Connects to the servers, starts the workers and gives what is to be served.
///
/// Fails if a server does not answer in time, the schema does not fit this program, or Redis is set up in a way in which
/// events would be lost or late.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let db = connect_db(&config).await?;
    let redis = connect_redis(&config).await?;
    let topic = Topic::Event.name(&config.kafka_topic_prefix);
    wait_for("Kafka", config.common.wait_for_servers(), || reach_kafka(&config.kafka_brokers, &topic)).await?;
    let outbox = spawn_relay(&config, topic, &db, &workers)?;
    let events = Events::new(db, redis.clone(), outbox, Arc::new(SystemClock), config.reschedule_lead());

    let (swept, interval) = (events.clone(), config.sweep_interval());
    workers.spawn(Stage::Consumer, "due sweep", move |stop| worker::sweep::run(swept, interval, stop));
    let heard = events.clone();
    workers.spawn(Stage::Consumer, "expiry listener", move |stop| worker::listener::run(heard, redis, stop));

    let routes = Routes::new(EventServiceServer::new(EventApi::new(events)));
    Ok(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME]))
}

async fn connect_db(config: &Config) -> anyhow::Result<Database> {
    let connect = || Database::connect(&config.database_url, DbConfig::default());
    let db = wait_for("the event database", config.common.wait_for_servers(), connect).await?;
    db.check_schema(&stampede_db::schema::EVENT).await?;
    Ok(db)
}

async fn connect_redis(config: &Config) -> anyhow::Result<Redis> {
    let connect =
        || Redis::connect(RedisConfig { url: config.redis_url.clone(), key_prefix: config.redis_key_prefix.clone() });
    let redis = wait_for("the Redis of the timers", config.common.wait_for_servers(), connect).await?;
    redis.require_noeviction().await?;
    redis.require_expiry_notifications().await.context("the timers of events")?;
    Ok(redis)
}

fn spawn_relay(config: &Config, topic: String, db: &Database, workers: &Workers) -> anyhow::Result<Outbox> {
    let (outbox, relay) = Relay::new(RelayConfig::new(&config.kafka_brokers, topic, "/stampede/event"), db.clone())?;
    workers.spawn(Stage::Relay, "relay", move |stop| async move {
        relay.run(stop).await;
        Ok(())
    });
    Ok(outbox)
}
