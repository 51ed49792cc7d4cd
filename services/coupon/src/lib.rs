//! The coupon service: campaigns, and first-come claims on them.
//!
//! A claim is ranked by one script call in Redis, stored in MySQL with its message in one transaction, and answered
//! after the commit. Ranked means issued: a claim whose row was not written is finished by a sweep. The unique keys in
//! MySQL decide, so a Redis that was lost or rolled back is rebuilt from the rows and can issue nothing twice.
//!
//! An order holds a coupon, and its end uses or returns it; a sweep returns the holds whose order was never written,
//! by a look-up at the order service.
//!
//! It runs as `stampede serve coupon`; `--help` has an example.

mod client;
mod config;
mod domain;
mod messages;
mod rpc;
mod store;
mod usecase;
mod worker;

pub use config::Config;

use client::Orders;
use rpc::CouponRpc;
use stampede_chassis::{Grpc, Workers};
use stampede_lua::Redis;
use stampede_proto::{
    coupon::v1::coupon_service_server::{CouponServiceServer, SERVICE_NAME},
    messages::taken_by,
};
use stampede_service::Parts;
use stampede_vocab::Service;
use std::time::Duration;
use tonic::service::Routes;
use usecase::{
    Acknowledger, Campaigns, ClaimCoupon, CreateCampaign, FindCampaigns, FindCoupons, FinishClaims, HoldCoupons,
    ReleaseCoupon, ReleaseUnwritten, StageCampaign, StagingQueue, StoreClaims,
};
use worker::{Consumer, Staging, UnwrittenHolds};

/// Time between two sweeps for claims that were ranked and never stored.
const FINISH_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two polls for campaigns that are missing in Redis.
const STAGING_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time-out of one round of a worker.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// No time-out for rounds that stage campaigns: they take longer for larger ones. Each of their statements and scripts
/// has one.
const STAGING_TIMEOUT: Duration = Duration::MAX;

/// Connects to the servers, starts the workers, and makes the gRPC service.
///
/// Fails if a server does not answer in time, the schema does not fit this program, Redis may evict keys, or coupons
/// would be returned too early.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let unwritten_hold_age = config.unwritten_hold_age()?;
    let parts = Parts::connect(Service::Coupon, &config.service, workers).await?;
    let redis = parts.redis(&config.redis).await?;
    parts.consume(taken_by(Service::Coupon), Consumer)?;
    start_unwritten_holds(&parts, &config, unwritten_hold_age);
    let rpc = start_claims(&parts, &config, redis);
    let routes = Routes::new(CouponServiceServer::new(rpc));
    Ok(parts.serve(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME])))
}

fn start_unwritten_holds(parts: &Parts, config: &Config, age: Duration) {
    let orders = Orders::new(parts.channel(&config.order_urls, Service::Order));
    let release = ReleaseUnwritten::new(parts.db.clone(), orders, age);
    parts.work("unwritten order sweep", ROUND_TIMEOUT, UnwrittenHolds::new(release, age));
}

/// Creates the use cases of campaigns and claims, and starts the workers that stage campaigns and finish claims.
fn start_claims(parts: &Parts, config: &Config, redis: Redis) -> CouponRpc {
    let db = parts.db.clone();
    let campaigns = Campaigns::new(db.clone());
    let queue = StagingQueue::default();
    let (acknowledger, mut acknowledging) = Acknowledger::new(redis.clone());
    let store = StoreClaims::new(db.clone(), parts.outbox.clone(), acknowledger, queue.clone());
    let finish = FinishClaims::new(db.clone(), redis.clone(), store.clone());
    let stage = StageCampaign::new(db.clone(), redis.clone(), finish.clone());

    // The sweep of unfinished claims repeats the acknowledgements that a stop leaves undone.
    parts.spawn_last("acknowledge claims", |stop| async move {
        stop.run_until_cancelled(async move { while acknowledging.acknowledge_next().await {} }).await;
        Ok(())
    });
    let staging = Staging { stage: stage.clone(), campaigns: campaigns.clone(), queue: queue.clone() };
    parts.work("stage campaigns", STAGING_TIMEOUT, staging);
    let missing = (stage.clone(), queue.clone());
    parts.every("stage missing campaigns", STAGING_POLL_INTERVAL, STAGING_TIMEOUT, move || {
        let (stage, queue) = missing.clone();
        async move { stage.stage_missing(&queue).await }
    });
    let age = config.unfinished_claim_age();
    parts.every("finish claims", FINISH_INTERVAL, ROUND_TIMEOUT, move || {
        let finish = finish.clone();
        async move { finish.sweep(age).await }
    });

    CouponRpc {
        create: CreateCampaign::new(db.clone(), redis.clone(), stage),
        claim: ClaimCoupon::new(db.clone(), redis.clone(), campaigns.clone(), queue, store),
        campaigns: FindCampaigns::new(db.clone(), redis, campaigns.clone()),
        coupons: FindCoupons::new(db.clone(), campaigns.clone()),
        hold: HoldCoupons::new(db.clone(), campaigns),
        release: ReleaseCoupon::new(db),
    }
}
