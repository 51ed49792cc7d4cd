//! The payment service: a buyer is charged once for an order, whatever fails in between.
//!
//! The order service asks by message. The consumer only writes the attempt down ([`usecase`]): as taken over by this
//! process if the pool that charges ([`worker`]) has a hand free for it, and else as waiting for that pool to claim it.
//! Only when the one or the other is committed is the provider asked ([`provider`]), under a key made of payment and
//! attempt. An answer ends the attempt. No answer makes it UNKNOWN, and so does the death of the process; then another
//! pool asks the provider by that key, and sends the charge again, under the same key, only if the provider never took
//! it. Refunds go the same way. Notices of the provider are a third way to the same end, and may come before the
//! answer, after it, or twice.

pub mod config;
pub mod domain;
mod provider;
mod rpc;
mod store;
pub mod usecase;
mod wire;
pub mod worker;

pub use config::Config;

use crate::{
    provider::HttpProvider,
    rpc::PaymentApi,
    usecase::{Hands, Payments},
    worker::{Charges, Orders, Pace, Refunds, Unknowns},
};
use stampede_chassis::{Grpc, Stage, Workers, wait_for};
use stampede_db::{Database, DbConfig};
use stampede_inbox::{Consumer, ConsumerConfig};
use stampede_outbox::{Outbox, Relay, RelayConfig, reach_kafka};
use stampede_proto::payment::v1::payment_service_server::{PaymentServiceServer, SERVICE_NAME};
use stampede_vocab::{SystemClock, Topic};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use tonic::service::Routes;

/// How often the queues of charges and refunds are looked at when nobody wakes their pool: what another replica has
/// queued wakes only its own.
const QUEUE_POLL: Duration = Duration::from_millis(500);
/// How often charges of unknown outcome are looked for. Time alone makes them due.
const UNKNOWN_POLL: Duration = Duration::from_millis(200);

/// Connects to the servers, starts the workers and gives what is to be served.
///
/// Fails if a server does not answer in time, the schema does not fit this program, or the provider's URL is of no use.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let provider = HttpProvider::new(&config.provider_url, config.provider_timeout())?;
    let db = connect_db(&config).await?;
    let topic = Topic::Payment.name(&config.kafka_topic_prefix);
    wait_for("Kafka", config.common.wait_for_servers(), || reach_kafka(&config.kafka_brokers, &topic)).await?;
    let outbox = spawn_relay(&config, topic, &db, &workers)?;
    let clock = Arc::new(SystemClock);
    let (charging, lease) = (Hands::new(config.max_charges_in_flight), config.lease());
    let secret = &config.webhook_secret;
    let payments = Payments::new(db.clone(), outbox, clock, provider, charging.clone(), secret, lease);
    spawn_consumer(&config, db, payments.clone(), &workers)?;
    spawn_pools(&config, charging, &payments, &workers);

    let routes = Routes::new(PaymentServiceServer::new(PaymentApi::new(payments)));
    Ok(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME]))
}

async fn connect_db(config: &Config) -> anyhow::Result<Database> {
    let connect = || Database::connect(&config.database_url, DbConfig::default());
    let db = wait_for("the payment database", config.common.wait_for_servers(), connect).await?;
    db.check_schema(&stampede_db::schema::PAYMENT).await?;
    Ok(db)
}

fn spawn_relay(config: &Config, topic: String, db: &Database, workers: &Workers) -> anyhow::Result<Outbox> {
    let (outbox, relay) = Relay::new(RelayConfig::new(&config.kafka_brokers, topic, "/stampede/payment"), db.clone())?;
    workers.spawn(Stage::Relay, "relay", move |stop| async move {
        relay.run(stop).await;
        Ok(())
    });
    Ok(outbox)
}

fn spawn_consumer(config: &Config, db: Database, payments: Payments, workers: &Workers) -> anyhow::Result<()> {
    let consumed = ConsumerConfig::new(&config.kafka_brokers, &config.kafka_topic_prefix, "payment");
    let consumer = Consumer::new(consumed, db, Arc::new(Orders::new(payments)))?;
    workers.spawn(Stage::Consumer, "order consumer", move |stop| async move {
        consumer.run(stop).await;
        Ok(())
    });
    Ok(())
}

/// `charging` are the hands that the consumer takes over attempts with, too.
fn spawn_pools(config: &Config, charging: Hands, payments: &Payments, workers: &Workers) {
    let pace = |hands: NonZeroUsize, poll| Pace { hands: Hands::new(hands), poll };
    let (queue, charging) = (Charges(payments.clone()), Pace { hands: charging, poll: QUEUE_POLL });
    workers.spawn(Stage::Consumer, "charge worker", move |stop| worker::run(queue, charging, stop));
    let (queue, looking) = (Unknowns(payments.clone()), pace(config.max_lookups_in_flight, UNKNOWN_POLL));
    workers.spawn(Stage::Consumer, "reconciler", move |stop| worker::run(queue, looking, stop));
    let (queue, refunding) = (Refunds(payments.clone()), pace(config.max_refunds_in_flight, QUEUE_POLL));
    workers.spawn(Stage::Consumer, "refund worker", move |stop| worker::run(queue, refunding, stop));
    let measured = payments.clone();
    workers.spawn(Stage::Consumer, "payment gauges", move |stop| worker::measure(measured, stop));
}
