//! The inventory service: who gets units, decided in Redis by an atomic script, and committed in the ledger, which is
//! the truth.
//!
//! A reservation becomes a *hold* in Redis ([`usecase`], the scripts of `stampede_lua::stock`). When the order is
//! accepted, its message reaches the *ledger* consumer ([`worker`]): a whole batch is applied to what was read under
//! the lock of its items ([`domain`]) and written in one transaction with the answers; then the hold leaves Redis and
//! the committed units take its place. Redis may be lost at any moment: the ledger never commits more than there is,
//! and copies itself to Redis again.

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
use stampede_chassis::{Grpc, MeshChannel, Workers};
use stampede_lua::stock::Stock;
use stampede_proto::{
    inventory::v1::inventory_service_server::{InventoryServiceServer, SERVICE_NAME},
    messages::taken_by,
};
use stampede_service::Parts;
use stampede_vocab::Service;
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tonic::service::Routes;
use usecase::{
    ApplyMessages, HoldAges, Reconcile, ReleaseHolds, ReleaseOrphans, ReserveUnits, StageStock, SyncRedis, ViewStock,
};
use worker::{Consumer, Gauges};

/// Longest time of one round of a worker.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two measurements of the gauges.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

/// Connects to the servers, starts the workers, and makes the gRPC service.
///
/// Fails if a server does not answer in time, the schema does not fit this program, Redis is set up in a way in which
/// stock would be lost, or holds would be given back too early.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let ages = config.hold_ages()?;
    let parts = Parts::connect(Service::Inventory, &config.service, workers).await?;
    let redis = Stock::new(parts.redis(&config.redis).await?);
    let sync = SyncRedis::new(redis.clone());
    let reconcile = Reconcile::new(parts.db.clone(), redis.clone(), sync.clone());
    let view = ViewStock::new(parts.db.clone(), redis.clone());
    let apply = ApplyMessages::new(parts.outbox.clone(), sync.clone(), reconcile.clone());
    parts.consume(taken_by(Service::Inventory), Consumer::new(apply))?;
    start_orphan_sweep(&parts, &config, ages, redis.clone(), sync);
    start_rounds(&parts, &config, &reconcile, &view);
    let rpc = InventoryRpc {
        stage: StageStock::new(parts.db.clone(), reconcile.clone()),
        reserve: ReserveUnits::new(parts.db.clone(), redis.clone()),
        release: ReleaseHolds::new(redis),
        view,
        reconcile,
        outcomes: Outcomes::new(),
    };
    let routes = Routes::new(InventoryServiceServer::new(rpc));
    Ok(parts.serve(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME])))
}

fn start_orphan_sweep(parts: &Parts, config: &Config, ages: HoldAges, redis: Stock, sync: SyncRedis) {
    let orders = Orders::new(MeshChannel::connect(&config.order_urls, Service::Order.name()));
    let orphans = ReleaseOrphans::new(parts.db.clone(), redis, sync, orders, ages);
    // A round goes on where the one before has ended.
    let orphans = Arc::new(Mutex::new(orphans));
    parts.every("orphan sweep", config.sweep_interval(), ROUND_TIMEOUT, move || {
        let orphans = orphans.clone();
        async move { orphans.lock().await.run().await }
    });
}

fn start_rounds(parts: &Parts, config: &Config, reconcile: &Reconcile, view: &ViewStock) {
    let reconcile = reconcile.clone();
    parts.every("reconciler", config.reconcile_interval(), ROUND_TIMEOUT, move || {
        let reconcile = reconcile.clone();
        async move { reconcile.run_all().await }
    });
    let gauges = Gauges::new(view.clone());
    parts.every("stock gauges", GAUGE_INTERVAL, ROUND_TIMEOUT, move || {
        let gauges = gauges.clone();
        async move { gauges.measure().await }
    });
}
