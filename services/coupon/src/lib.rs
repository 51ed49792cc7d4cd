//! The coupon service: campaigns, and first-come claims on them.
//!
//! A claim is ranked by one script call in Redis, stored in MySQL with its message in one transaction, and answered
//! after the commit. Ranked means issued: a claim whose row was not written is finished by a sweep. MySQL's unique keys
//! have the last word, so a Redis that is lost or rolled back is rebuilt from them and can issue nothing twice.
//!
//! An order holds a coupon, and its end uses or returns it; a sweep asks the order service about holds whose order was
//! never written.

mod config;
mod domain;
mod rpc;
mod store;
mod usecase;
mod wire;
mod worker;

pub use config::Config;

use anyhow::Context as _;
use stampede_chassis::{Grpc, Mesh, Stage, Workers, wait_for};
use stampede_db::{Database, DbConfig};
use stampede_inbox::{Consumer, ConsumerConfig};
use stampede_lua::{Redis, RedisConfig};
use stampede_outbox::{Outbox, Relay, RelayConfig, reach_kafka};
use stampede_proto::{
    coupon::v1::coupon_service_server::CouponServiceServer, order::v1::order_service_client::OrderServiceClient,
};
use stampede_vocab::{SharedClock, SystemClock, Topic};
use std::sync::Arc;
use tonic::service::Routes;

/// Full name of the gRPC service.
const SERVICE: &str = "stampede.coupon.v1.CouponService";

/// What every part of the service works with.
#[derive(Clone)]
struct Servers {
    db: Database,
    redis: Redis,
    clock: SharedClock,
}

/// Connects to the servers, starts the workers, and makes the gRPC service.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let orphan_hold_age = config.orphan_hold_age()?;
    let servers = connect(&config).await?;
    let topic = Topic::Coupon.name(&config.kafka_topic_prefix);
    wait_for("Kafka", config.common.wait_for_servers(), || reach_kafka(&config.kafka_brokers, &topic)).await?;
    let outbox = start_relay(&config, topic, &servers, &workers)?;
    let rpc = start_claims(&config, &servers, outbox, &workers);
    start_orders(&config, orphan_hold_age, &servers, &workers)?;
    let routes = Routes::new(CouponServiceServer::new(rpc));
    Ok(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE]))
}

async fn connect(config: &Config) -> anyhow::Result<Servers> {
    let patience = config.common.wait_for_servers();
    let db_config = DbConfig { max_connections: config.database_max_connections, ..DbConfig::default() };
    let db = wait_for("MySQL", patience, || Database::connect(&config.database_url, db_config)).await?;
    db.check_schema(&stampede_db::schema::COUPON).await?;
    let redis = wait_for("Redis", patience, || {
        let (url, key_prefix) = (config.redis_url.clone(), config.redis_key_prefix.clone());
        Redis::connect(RedisConfig { url, key_prefix })
    })
    .await?;
    redis.require_noeviction().await?;
    Ok(Servers { db, redis, clock: Arc::new(SystemClock) })
}

fn start_relay(config: &Config, topic: String, servers: &Servers, workers: &Workers) -> anyhow::Result<Outbox> {
    let relay_config = RelayConfig::new(&config.kafka_brokers, topic, "/stampede/coupon");
    let (outbox, relay) = Relay::new(relay_config, servers.db.clone()).context("the relay cannot be made")?;
    workers.spawn(Stage::Relay, "relay", |stop| async move {
        relay.run(stop).await;
        Ok(())
    });
    Ok(outbox)
}

/// Campaigns and claims, with the workers that finish what was begun.
fn start_claims(config: &Config, servers: &Servers, outbox: Outbox, workers: &Workers) -> rpc::CouponRpc {
    let Servers { db, redis, clock } = servers.clone();
    let campaigns = usecase::Campaigns::new(db.clone());
    let queue = usecase::StagingQueue::default();
    let (settler, settling) = usecase::Settler::new(redis.clone());
    let store = usecase::StoreClaims::new(db.clone(), outbox, settler, queue.clone());
    let finish = usecase::FinishClaims::new(db.clone(), redis.clone(), clock.clone(), store.clone());
    let stage = usecase::StageCampaign::new(db.clone(), redis.clone(), clock.clone(), finish.clone());

    workers.spawn(Stage::Relay, "settle_claims", |stop| worker::settle(settling, stop));
    let staging = worker::Staging { stage: stage.clone(), campaigns: campaigns.clone(), queue: queue.clone() };
    workers.spawn(Stage::Consumer, "stage_campaigns", |stop| staging.run(stop));
    let unfinished = worker::UnfinishedClaims { finish, age: config.unfinished_claim_age() };
    workers.spawn(Stage::Consumer, "finish_claims", |stop| unfinished.run(stop));

    rpc::CouponRpc {
        create_campaign: usecase::CreateCampaign::new(db.clone(), clock.clone(), stage),
        claim_coupon: usecase::ClaimCoupon::new(servers.clone(), campaigns.clone(), queue, store),
        find_campaigns: usecase::FindCampaigns::new(db.clone(), redis, campaigns.clone()),
        find_coupons: usecase::FindCoupons::new(db.clone(), campaigns.clone()),
        hold_coupons: usecase::HoldCoupons::new(db.clone(), clock.clone(), campaigns),
        release_coupon: usecase::ReleaseCoupon::new(db, clock),
    }
}

/// What becomes of the orders that hold coupons: told by Kafka, and asked for where nothing is told.
fn start_orders(config: &Config, age: std::time::Duration, servers: &Servers, workers: &Workers) -> anyhow::Result<()> {
    let Servers { db, clock, .. } = servers.clone();
    let consumer_config = ConsumerConfig::new(&config.kafka_brokers, &config.kafka_topic_prefix, "coupon");
    let handler = Arc::new(worker::OrderHandler::new(clock.clone()));
    let consumer = Consumer::new(consumer_config, db.clone(), handler).context("the order consumer cannot be made")?;
    workers.spawn(Stage::Consumer, "order_consumer", |stop| async move {
        consumer.run(stop).await;
        Ok(())
    });

    let orphans = worker::OrphanHolds {
        orphans: usecase::ReturnOrphans::new(db, clock),
        orders: OrderServiceClient::new(Mesh::connect(&config.order_urls, "order")),
        age,
    };
    workers.spawn(Stage::Consumer, "orphan_holds", |stop| orphans.run(stop));
    Ok(())
}
