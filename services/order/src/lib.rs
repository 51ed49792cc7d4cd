//! The order service: takes orders and leads each to an end.
//!
//! `PlaceOrder` reserves units, which inventory commits in the ledger, and holds the coupon. Then it writes the order
//! and its message in one transaction, batched with other orders. The order can now be paid. Later changes come from
//! messages (a payment was approved, declined or refunded; units for a late payment were committed or not), from
//! requests of the buyer (pay, cancel) or an operator (refund), and from sweeps: of the deadlines, and of the orders of
//! cancelled events. All take the same path: a batch of orders is locked, the domain decides each transition, and
//! states and messages are written in one transaction (`usecase/transitions.rs`). An order that waits too long for
//! another service asks it again.
//!
//! The service has no Redis and never calls another service inside a transaction.
//!
//! It runs as `stampede serve order`; `--help` has an example.

mod client;
mod config;
mod domain;
mod messages;
mod rpc;
mod store;
mod usecase;
mod worker;

pub use config::Config;

use client::{Coupons, Inventory};
use rpc::OrderRpc;
use stampede_chassis::{Grpc, Workers};
use stampede_proto::{
    messages::taken_by,
    order::v1::order_service_server::{OrderServiceServer, SERVICE_NAME},
};
use stampede_service::Parts;
use stampede_vocab::Service;
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tonic::service::Routes;
use usecase::{
    AskAgain, ChangeOrder, CountOpenOrders, EndEventOrders, EventCancellations, ExpireOrders, FindOrder, FinishPending,
    ListOrders, PlaceOrder, Transitions, WatchOrder, WriteOrders,
};
use worker::{Consumer, Gauges};

/// Time-out of one round of a worker.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// Poll interval for orders that an earlier release has left pending.
const PENDING_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Poll interval for cancelled events, and the pause between two rounds through the orders of one.
const CANCELLED_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Not shorter: counting reads the row of each order that has not ended, tens of thousands in a rush.
const GAUGE_INTERVAL: Duration = Duration::from_secs(15);

/// Connects to the servers, starts the workers, and makes the gRPC service.
///
/// Fails if flags contradict each other, a server does not answer in time, or the schema does not fit this program.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    config.check()?;
    let parts = Parts::connect(Service::Order, &config.service, workers).await?;
    let transitions = Transitions::new(parts.db.clone(), parts.outbox.clone(), config.payment_policy());
    let consumer = Consumer::new(transitions.clone(), EventCancellations::new(parts.db.clone()));
    parts.consume(taken_by(Service::Order), consumer)?;
    let inventory = Inventory::new(parts.channel(&config.inventory_urls, Service::Inventory));
    start_sweeps(&parts, &config, &inventory, &transitions);
    start_end_of_event_orders(&parts, &config, transitions.clone());
    start_gauges(&parts);
    let write = WriteOrders::connect(parts.db.clone(), parts.outbox.clone()).await?;
    let rpc = rpc(&parts, &config, inventory, transitions, write);
    let routes = Routes::new(OrderServiceServer::new(rpc));
    Ok(parts.serve(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME])))
}

fn start_sweeps(parts: &Parts, config: &Config, inventory: &Inventory, transitions: &Transitions) {
    let expire = ExpireOrders::new(parts.db.clone(), config.payment_policy(), transitions.clone());
    let expire = Arc::new(Mutex::new(expire));
    parts.every("deadline sweep", config.sweep_interval(), ROUND_TIMEOUT, move || {
        let expire = expire.clone();
        async move { expire.lock().await.run().await }
    });
    let ask = Arc::new(Mutex::new(AskAgain::new(parts.db.clone(), config.payment_policy(), transitions.clone())));
    parts.every("sweep of unanswered orders", config.ask_interval(), ROUND_TIMEOUT, move || {
        let ask = ask.clone();
        async move { ask.lock().await.run().await }
    });
    // A round continues where the previous one ended.
    let finish = FinishPending::new(parts.db.clone(), inventory.clone(), transitions.clone());
    let finish = Arc::new(Mutex::new(finish));
    parts.every("pending order sweep", PENDING_POLL_INTERVAL, ROUND_TIMEOUT, move || {
        let finish = finish.clone();
        async move { finish.lock().await.run().await }
    });
}

fn start_end_of_event_orders(parts: &Parts, config: &Config, transitions: Transitions) {
    let end = EndEventOrders::new(parts.db.clone(), transitions, config.write_limit.order_write_limit());
    let end = Arc::new(Mutex::new(end));
    parts.every("orders of cancelled events", CANCELLED_POLL_INTERVAL, ROUND_TIMEOUT, move || {
        let end = end.clone();
        async move { end.lock().await.run().await }
    });
}

fn start_gauges(parts: &Parts) {
    let gauges = Gauges::new(CountOpenOrders::new(parts.db.clone()));
    parts.every("order gauges", GAUGE_INTERVAL, ROUND_TIMEOUT, move || {
        let gauges = gauges.clone();
        async move { gauges.measure().await }
    });
}

fn rpc(parts: &Parts, config: &Config, inventory: Inventory, transitions: Transitions, write: WriteOrders) -> OrderRpc {
    let coupons = Coupons::new(parts.channel(&config.coupon_urls, Service::Coupon));
    let find = FindOrder::new(parts.db.clone());
    let write_limit = config.write_limit.order_write_limit();
    OrderRpc {
        place: PlaceOrder::new(inventory, coupons, find.clone(), write, write_limit, config.payment_policy()),
        change: ChangeOrder::new(transitions),
        list: ListOrders::new(parts.db.clone(), config.list_looks_at),
        watch: WatchOrder::new(parts.db.clone(), find.clone(), config.watch.interval()),
        cancellations: EventCancellations::new(parts.db.clone()),
        find,
        write_limit,
    }
}
