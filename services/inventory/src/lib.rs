//! The inventory service: who gets units, decided in Redis by an atomic script, and committed in the ledger, which is
//! the truth.
//!
//! A reservation becomes a *hold* in Redis (the scripts of `stampede_lua::stock`), which refuses most of a crowd
//! without the database. What was granted goes into the *ledger* with all that was granted beside it, in one
//! transaction ([`usecase`], [`domain`]), and only then the caller is answered; the hold leaves Redis and the committed
//! units take its place. Redis may be lost at any moment: the ledger never commits more than there is, and copies
//! itself to Redis again. What an order gives back comes as its message ([`worker`]).
//!
//! It runs as `stampede serve inventory`; `--help` has an example.

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
use rpc::{InventoryRpc, Outcomes};
use stampede_chassis::{Grpc, Workers};
use stampede_lua::stock::Stock;
use stampede_proto::{
    inventory::v1::inventory_service_server::{InventoryServiceServer, SERVICE_NAME},
    messages::taken_by,
};
use stampede_service::Parts;
use stampede_vocab::Service;
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use usecase::{
    ApplyMessages, CheckStaging, CompareAll, DropStaleHolds, Reconcile, ReleaseEnded, ReleaseReservations,
    ReleaseUnwritten, ReserveUnits, StageStock, SyncRedis, ViewStock,
};
use worker::{Consumer, Gauges, UnwrittenOrders};

/// Time-out of one round of a worker. The next round resumes where this one was cut.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two measurements of the gauges.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two checks of the events that open soon.
const STAGING_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Connects to the servers, starts the workers, and makes the gRPC service.
///
/// Fails if a server does not answer in time, the schema does not fit this program, Redis is configured so that stock
/// would be lost, or the configured ages would give units back too early.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let unwritten_age = config.unwritten_order_age()?;
    let parts = Parts::connect(Service::Inventory, &config.service, workers).await?;
    let server = parts.redis(&config.redis).await?;
    let redis = Stock::new(server.clone());
    let sync = SyncRedis::new(redis.clone());
    let reconcile = Reconcile::new(parts.db.clone(), redis.clone(), sync.clone(), config.reconcile_interval());
    let release = ReleaseReservations::new(parts.db.clone(), sync.clone());
    let view = ViewStock::new(parts.db.clone(), redis.clone(), reconcile.clone(), config.watch.interval());
    let apply = ApplyMessages::new(parts.outbox.clone(), sync.clone(), reconcile.clone());
    parts.consume(taken_by(Service::Inventory), Consumer::new(apply))?;
    start_order_sweep(&parts, &config, unwritten_age, (release.clone(), sync.clone()));
    start_hold_sweep(&parts, &config, redis.clone(), sync.clone());
    start_rounds(&parts, &config, &reconcile, &view);
    let rpc = InventoryRpc {
        stage: StageStock::new(parts.db.clone(), server, reconcile.clone()),
        reserve: ReserveUnits::new(parts.db.clone(), redis, sync, reconcile.clone()),
        release,
        view,
        reconcile,
        outcomes: Outcomes::new(),
    };
    let routes = Routes::new(InventoryServiceServer::new(rpc));
    Ok(parts.serve(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME])))
}

/// Starts the sweep for orders that were never written, and, less often, for ended orders that kept their units.
fn start_order_sweep(
    parts: &Parts,
    config: &Config,
    unwritten_age: Duration,
    (release, sync): (ReleaseReservations, SyncRedis),
) {
    let orders = Orders::new(parts.channel(&config.order_urls, Service::Order));
    let ended = ReleaseEnded::new(parts.db.clone(), orders.clone(), sync, config.ended_order_age());
    let unwritten = ReleaseUnwritten::new(parts.db.clone(), orders, release, unwritten_age);
    let sweep = UnwrittenOrders::new(unwritten, ended, config.sweep_interval());
    parts.work("unwritten order sweep", ROUND_TIMEOUT, sweep);
}

fn start_hold_sweep(parts: &Parts, config: &Config, redis: Stock, sync: SyncRedis) {
    let stale = DropStaleHolds::new(parts.db.clone(), redis, sync, config.stale_hold_age());
    let stale = Arc::new(stale);
    parts.every("stale hold sweep", config.sweep_interval(), ROUND_TIMEOUT, move || {
        let stale = stale.clone();
        async move { stale.run().await }
    });
}

fn start_rounds(parts: &Parts, config: &Config, reconcile: &Reconcile, view: &ViewStock) {
    let all = Arc::new(CompareAll::new(reconcile.clone()));
    parts.every("reconciler of all", config.reconcile_interval(), ROUND_TIMEOUT, move || {
        let all = all.clone();
        async move { all.run().await }
    });
    let active = reconcile.clone();
    parts.every("reconciler", config.reconcile_interval(), ROUND_TIMEOUT, move || {
        let active = active.clone();
        async move { active.run_active().await }
    });
    let staging = Arc::new(CheckStaging::new(reconcile.clone(), config.staging_lead()));
    parts.every("staging check", STAGING_CHECK_INTERVAL, ROUND_TIMEOUT, move || {
        let staging = staging.clone();
        async move { staging.run().await }
    });
    let gauges = Gauges::new(view.clone());
    parts.every("stock gauges", GAUGE_INTERVAL, ROUND_TIMEOUT, move || {
        let gauges = gauges.clone();
        async move { gauges.measure().await }
    });
}
