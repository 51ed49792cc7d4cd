//! The event service: a sale event opens and closes at its times, exactly once, never early.
//!
//! An operator creates an event with its items ([`usecase`]), which is published through the outbox. Two workers
//! ([`worker`]) wait for its times. The *listener* is notified by Redis when the event's timer expires; the *due sweep*
//! sleeps until the time in the database. Both run the same transaction: it locks the event, opens it if it is
//! SCHEDULED and due, and writes the message. So any number of replicas, restarts and lost notifications open it once,
//! and the sweep alone is sufficient. "Due" is by the clock of Redis, whatever the machine of a replica says. A third
//! worker records, after the commit, when others could see it.
//!
//! Inventory gets every event by message. New times and cancellations are sent by a call as well ([`client`]), and the
//! operator is answered once inventory has confirmed them.
//!
//! It runs as `stampede serve event`; `--help` has an example.

mod client;
mod config;
mod domain;
mod messages;
mod rpc;
mod store;
mod usecase;
mod worker;

pub use config::Config;

use anyhow::Context as _;
use client::Inventory;
use rpc::EventRpc;
use stampede_chassis::{Grpc, Workers, wait_for};
use stampede_lua::Redis;
use stampede_proto::event::v1::event_service_server::{EventServiceServer, SERVICE_NAME};
use stampede_service::Parts;
use stampede_vocab::Service;
use std::time::Duration;
use tonic::service::Routes;
use usecase::{
    AdvanceEvents, ArmTimers, CancelEvent, CreateEvent, FindEvents, NoteSeen, RescheduleEvent, ScheduleChanges,
    WatchEvents,
};
use worker::{DueSweep, ExpiryListener, note_seen};

/// Time-out of one round of the due sweep. A transaction in flight goes on, and the next round sees its outcome.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the servers, starts the workers, and makes the gRPC service.
///
/// Fails if a server does not answer in time, the schema does not fit this program, or Redis is configured so that
/// events would be lost or late.
pub async fn build(config: Config, workers: Workers) -> anyhow::Result<Grpc> {
    let parts = Parts::connect(Service::Event, &config.service, workers).await?;
    let redis = parts.redis(&config.redis).await?;
    redis.require_one_server()?;
    require_expiry_notifications(&redis, config.service.common.wait_for_servers()).await?;
    let timers = ArmTimers::new(parts.db.clone(), redis.clone());
    let changes = ScheduleChanges::new(parts.outbox.clone(), timers.clone());
    start_workers(&parts, &config, redis, timers, &changes);
    let inventory = Inventory::new(parts.channel(&config.inventory_urls, Service::Inventory));
    let rpc = rpc(&parts, &config, changes, inventory);
    let routes = Routes::new(EventServiceServer::new(rpc));
    Ok(parts.serve(Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &[SERVICE_NAME])))
}

/// Refuses a Redis that does not publish expired keys. Waits for one that takes no key yet: it is reading its data, or
/// is no master.
async fn require_expiry_notifications(redis: &Redis, wait: Duration) -> anyhow::Result<()> {
    let check = || async {
        match redis.require_expiry_notifications().await {
            Err(error) if error.is_unreachable() && !error.is_denied() => Err(error),
            checked => Ok(checked),
        }
    };
    wait_for("Redis", wait, check).await?.context("the timers of events")
}

fn start_workers(parts: &Parts, config: &Config, redis: Redis, timers: ArmTimers, changes: &ScheduleChanges) {
    let (seen, note) = NoteSeen::new(parts.db.clone());
    let advance = AdvanceEvents::new(parts.db.clone(), parts.outbox.clone(), seen, config.missed_after());
    let sweep = DueSweep::new(advance.clone(), changes.clone(), config.sweep_interval());
    parts.work("due sweep", SWEEP_TIMEOUT, sweep);
    let listener = ExpiryListener { advance, timers, redis };
    parts.spawn("expiry listener", |stop| listener.run(stop));
    parts.spawn_last("seen times", |stop| note_seen(note, stop));
}

fn rpc(parts: &Parts, config: &Config, changes: ScheduleChanges, inventory: Inventory) -> EventRpc {
    let db = parts.db.clone();
    let find = FindEvents::new(db.clone());
    let lead = config.reschedule_lead();
    EventRpc {
        create: CreateEvent::new(db.clone(), changes.clone()),
        reschedule: RescheduleEvent::new(db.clone(), changes.clone(), inventory.clone(), lead),
        cancel: CancelEvent::new(db, changes, find.clone(), inventory),
        watch: WatchEvents::new(find.clone(), config.watch.interval()),
        find,
    }
}
