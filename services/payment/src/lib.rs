//! The payment service: a buyer is charged once for an order, whatever fails in between.
//!
//! The order service sends a message. The consumer only stores the attempt ([`usecase`]): leased to this process if the
//! charge pool ([`worker`]) has a free permit, and else queued for that pool to claim. After the commit the charge is
//! sent to the provider ([`provider`]), under a key made of payment and attempt. An answer ends the attempt. Without
//! one, or if the process is killed, its outcome is unknown. The reconciler then looks the charge up by that key, and
//! sends it again, under the same key, only if the provider never took it. Refunds work the same way. A notice of the
//! provider is a hint to look something up. What does not fit, or has no end while the provider keeps its key, is
//! parked as an anomaly, for an operator.
//!
//! It runs as `stampede serve payment`; `--help` has an example.

mod config;
mod domain;
mod messages;
mod provider;
mod rpc;
mod store;
mod usecase;
mod worker;

pub use config::Config;

use provider::{Breaker, HttpProvider, WebhookSecrets};
use rpc::PaymentRpc;
use stampede_chassis::{Grpc, Workers};
use stampede_proto::{
    messages::taken_by,
    payment::v1::payment_service_server::{PaymentServiceServer, SERVICE_NAME},
};
use stampede_service::Parts;
use stampede_vocab::Service;
use std::{num::NonZeroUsize, time::Duration};
use tonic::service::Routes;
use usecase::{
    CarryOutDecisions, ChargeAttempts, Context, FindPayments, FollowOrders, HandleWebhook, LookUpNotices, NoteRefunds,
    Permits, ReconcileAttempts, RefundPayments, RepublishCaptures, SettleAttempts, SettleRefunds,
};
use worker::{Consumer, Gauges, PoolConfig, Queue};

/// Poll interval of the queues of charges and refunds when nothing wakes their pool: a job that another replica has
/// queued wakes only the pool of that replica.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Poll interval for charges of unknown outcome. They become due by time, so nothing can wake their pool.
const UNKNOWN_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Interval of the gauges, and the time-out of one measurement.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the sweep of operators' decisions.
const DECISION_INTERVAL: Duration = Duration::from_secs(1);
/// Time-out of a round of a sweep: longer than it takes with every retry.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Connects to the servers, starts the workers, and makes the gRPC service.
///
/// Fails if a server does not answer in time, the schema does not fit this program, or the provider's URL is of no use.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let breaker = Breaker::new(config.breaker());
    let provider = HttpProvider::new(&config.provider_url, config.provider.provider_timeout(), breaker.clone())?;
    let parts = Parts::connect(Service::Payment, &config.service, workers).await?;
    let lease = config.provider.charge_lease();
    let terms = (lease, config.resend_for());
    let context = Context::new(parts.db.clone(), parts.outbox.clone(), terms, config.ended_order_age());
    let (settle, settle_refunds) = (SettleAttempts::new(context.clone()), SettleRefunds::new(context.clone()));
    let charge = ChargeAttempts::new(context.clone(), provider.clone(), settle.clone());
    let reconcile = ReconcileAttempts::new(context.clone(), provider.clone(), charge.clone(), settle.clone());
    let refund = RefundPayments::new(context.clone(), provider.clone(), settle_refunds.clone());
    let note_refunds = NoteRefunds::new(context.clone(), provider.clone(), config.refund_sweep_interval());
    let charging = Permits::new(config.max_charges_in_flight);
    let follow = FollowOrders::new(context.clone(), charging.clone(), breaker);
    parts.consume(taken_by(Service::Payment), Consumer::new(follow, charge.clone()))?;
    start_gauges(&parts, reconcile.clone(), note_refunds.clone());
    start_sweeps(&parts, &config, &context, note_refunds.clone());
    start_pools(&parts, &config, charging, (charge, reconcile, refund));

    let look_up = LookUpNotices::new(context.clone(), provider, settle, settle_refunds, note_refunds);
    let secrets = WebhookSecrets::new(&config.webhook_secret, config.webhook_secret_other.as_deref());
    let webhook = HandleWebhook::new(context, look_up, secrets);
    let rpc = PaymentRpc { find: FindPayments::new(parts.db.clone()), webhook };
    let routes = Routes::new(PaymentServiceServer::new(rpc));
    Ok(parts.serve(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME])))
}

/// Starts the pools. The consumer takes attempts over with permits of `charging`, too.
fn start_pools(
    parts: &Parts,
    config: &Config,
    charging: Permits,
    (charge, reconcile, refund): (ChargeAttempts, ReconcileAttempts, RefundPayments),
) {
    let pool = |permits: NonZeroUsize, poll_interval| PoolConfig { permits: Permits::new(permits), poll_interval };
    let charging = PoolConfig { permits: charging, poll_interval: QUEUE_POLL_INTERVAL };
    start_pool(parts, "charge worker", charge, charging);
    let looking_up = pool(config.max_lookups_in_flight, UNKNOWN_POLL_INTERVAL);
    start_pool(parts, "reconciler", reconcile, looking_up);
    let refunding = pool(config.max_refunds_in_flight, QUEUE_POLL_INTERVAL);
    start_pool(parts, "refund worker", refund, refunding);
}

fn start_pool(parts: &Parts, name: &'static str, queue: impl Queue, config: PoolConfig) {
    parts.spawn(name, |stop| worker::run(name, queue, config, stop));
}

fn start_sweeps(parts: &Parts, config: &Config, context: &Context, note_refunds: NoteRefunds) {
    let decisions = CarryOutDecisions::new(context.clone());
    parts.every("decisions on anomalies", DECISION_INTERVAL, SWEEP_TIMEOUT, move || {
        let decisions = decisions.clone();
        async move { decisions.run().await }
    });
    let republish = RepublishCaptures::new(context.clone());
    parts.every("ended order sweep", config.ended_order_interval(), SWEEP_TIMEOUT, move || {
        let republish = republish.clone();
        async move { republish.run().await }
    });
    parts.every("refund sweep", config.refund_sweep_interval(), SWEEP_TIMEOUT, move || {
        let note_refunds = note_refunds.clone();
        async move { note_refunds.sweep().await }
    });
}

fn start_gauges(parts: &Parts, reconcile: ReconcileAttempts, note_refunds: NoteRefunds) {
    let gauges = Gauges::new(reconcile, note_refunds);
    parts.every("payment gauges", GAUGE_INTERVAL, GAUGE_INTERVAL, move || {
        let gauges = gauges.clone();
        async move { gauges.measure().await }
    });
}
