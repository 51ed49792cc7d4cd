//! Connects a service to its servers, and starts its workers.

use crate::{
    KafkaArgs, MessageIds, RedisArgs, ServiceArgs, StorageArgs, Worker, every::Every, redis_memory::RedisMemory, work,
};
use stampede_chassis::{Grpc, MeshChannel, SharedClock, Signer, Stage, Workers, follow_clock, wait_for};
use stampede_db::{Database, DbConfig, DbError, Schema};
use stampede_inbox::{Consumer, ConsumerConfig, Handler};
use stampede_kafka::reach_kafka;
use stampede_lua::{Redis, RedisConfig};
use stampede_outbox::{Outbox, Relay, RelayConfig};
use stampede_vocab::{Process, Service};
use std::{
    convert::Infallible,
    fmt::Display,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Time between two measurements of the memory of Redis.
const MEMORY_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of one measurement.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two checks whether the consumer or the relay is stalled.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The connections and workers of one service.
pub struct Parts {
    /// Its schema, which is the one that this program was built for.
    pub db: Database,
    /// Wakes its relay.
    pub outbox: Outbox,
    relay: Relay,
    service: Service,
    kafka: KafkaArgs,
    signer: Signer,
    wait_for_servers: Duration,
    workers: Workers,
}

impl Parts {
    /// Connects `service` to its schema and to Kafka.
    ///
    /// Fails if a server does not answer in time, or the schema does not fit this program, or is not prepared in time.
    pub async fn connect(service: Service, args: &ServiceArgs, workers: Workers) -> anyhow::Result<Self> {
        let signer = args.common.mesh.signer(service)?;
        let wait = args.common.wait_for_servers();
        let db = connect(service, &args.storage, wait).await?;
        follow_database(service, &db, &workers, wait).await?;
        let kafka = args.kafka.clone();
        let topic = service.topic(&kafka.kafka_topic_prefix);
        wait_for("Kafka", wait, || reach_kafka(&kafka.kafka_brokers, &topic)).await?;
        let config = RelayConfig::new(&kafka.kafka_brokers, &kafka.kafka_topic_prefix, service)
            .with_row_ids(kafka.kafka_message_ids == MessageIds::Row);
        let (outbox, relay) = Relay::new(config, db.clone())?;
        Ok(Self { db, outbox, relay, service, kafka, signer, wait_for_servers: wait, workers })
    }

    /// Returns a channel to the replicas of another service at these URLs, for calls on the service's own behalf.
    pub fn channel(&self, urls: &[String], to: Service) -> MeshChannel {
        MeshChannel::connect(urls, to.name()).signed_by(self.signer.clone()).on_own_behalf()
    }

    /// Connects to the Redis of the service, corrects the time of the process to its clock, and measures its memory.
    /// Must come before code that decides by time.
    ///
    /// Fails if it does not answer in time, or may evict keys.
    pub async fn redis(&self, args: &RedisArgs) -> anyhow::Result<Redis> {
        let connect =
            || Redis::connect(RedisConfig { url: args.redis_url.clone(), key_prefix: args.redis_key_prefix.clone() });
        let redis = wait_for("Redis", self.wait_for_servers, connect).await?;
        redis.require_noeviction().await?;
        if redis.frees_lazily().await? == Some(false) {
            tracing::warn!(
                "redis stands still while it frees what is large: set lazyfree-lazy-expire and lazyfree-lazy-user-del"
            );
        }
        follow_redis(&redis, &self.workers, self.wait_for_servers).await?;
        let memory = RedisMemory::new(redis.clone());
        self.every("redis memory", MEMORY_INTERVAL, MEMORY_TIMEOUT, move || {
            let memory = memory.clone();
            async move { memory.measure().await }
        });
        Ok(redis)
    }

    /// Starts the consumer of the topics that the service reads, for messages of these types. `/readyz` reports whether
    /// it is stalled, but the process stays ready.
    ///
    /// Fails if the Kafka client cannot be made.
    pub fn consume<H: Handler>(
        &self,
        message_types: impl IntoIterator<Item = String>,
        handler: H,
    ) -> anyhow::Result<()> {
        let KafkaArgs { kafka_brokers, kafka_topic_prefix, kafka_max_poll_interval_ms, .. } = &self.kafka;
        let config = ConsumerConfig::new(kafka_brokers, kafka_topic_prefix, self.service, message_types)
            .with_max_poll_interval_ms(*kafka_max_poll_interval_ms);
        let consumer = Consumer::new(config, self.db.clone(), Arc::new(handler))?;
        let progress = consumer.progress();
        self.note_progress("consumer", move || progress.stands_still());
        self.workers.spawn(Stage::Consumer, "consumer", |stop| async move {
            consumer.run(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Reports on `/readyz` whether a worker is stalled. The process stays ready: its RPCs need the database and Redis,
    /// but not Kafka.
    fn note_progress(&self, name: &'static str, stands_still: impl Fn() -> bool + Send + 'static) {
        let note = self.workers.note(name);
        self.every(name, PROGRESS_INTERVAL, PROGRESS_INTERVAL, move || {
            if stands_still() {
                note.close();
            } else {
                note.open();
            }
            ready(Ok::<(), Infallible>(()))
        });
    }

    /// Runs `round` at once and then every `period` until the process stops. Logs a round that fails or takes longer
    /// than `time_out`; the next one tries again.
    pub fn every<F, Fut, E>(&self, name: &'static str, period: Duration, time_out: Duration, round: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        self.work(name, time_out, Every { period, round });
    }

    /// Runs the rounds of a worker until the process stops, each within `time_out`. The worker stops with the consumer,
    /// before the relay.
    pub fn work<W: Worker>(&self, name: &'static str, time_out: Duration, worker: W) {
        self.workers.spawn(Stage::Consumer, name, move |stop| async move {
            work(name, time_out, worker, stop).await;
            Ok(())
        });
    }

    /// Spawns a worker with a loop of its own, which stops with the consumer.
    pub fn spawn<F, Fut>(&self, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.workers.spawn(Stage::Consumer, name, work);
    }

    /// Starts the relay and returns `grpc` to be served. Must come last: a relay takes partitions over from other
    /// replicas, so a replica that cannot serve must not start one. `/readyz` reports whether it is stalled.
    pub fn serve(self, grpc: Grpc) -> Grpc {
        let outbox = self.outbox.clone();
        self.note_progress("relay", move || outbox.is_stalled());
        let Self { relay, workers, .. } = self;
        workers.spawn(Stage::Relay, "relay", |stop| async move {
            relay.run(stop).await;
            Ok(())
        });
        grpc
    }

    /// Spawns a worker with a loop of its own, which stops last, with the relay.
    pub fn spawn_last<F, Fut>(&self, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.workers.spawn(Stage::Relay, name, work);
    }
}

/// Measures the clock of the database. A service without Redis is corrected to it, as the only clock that its replicas
/// share.
async fn follow_database(service: Service, db: &Database, workers: &Workers, wait: Duration) -> anyhow::Result<()> {
    let clock = SharedClock { of: "database", leads: Process::Service(service).redis().is_none() };
    let db = db.clone();
    let read = move || {
        let db = db.clone();
        async move { db.time().await }
    };
    follow_clock(workers, clock, wait, read).await
}

/// Corrects the time of the process to the clock of Redis, by which its scripts decide.
async fn follow_redis(redis: &Redis, workers: &Workers, wait: Duration) -> anyhow::Result<()> {
    let redis = redis.clone();
    let read = move || {
        let redis = redis.clone();
        async move { redis.time().await }
    };
    follow_clock(workers, SharedClock { of: "redis", leads: true }, wait, read).await
}

async fn connect(service: Service, args: &StorageArgs, wait: Duration) -> anyhow::Result<Database> {
    let config = DbConfig { max_connections: args.database_max_connections, ..DbConfig::default() };
    let connect = || Database::connect(&args.database_url, config);
    let db = wait_for(&format!("the {service} database"), wait, connect).await?;
    let schema = Schema::of(service);
    wait_for(&format!("the {service} schema"), wait, || checked(&db, schema)).await??;
    Ok(db)
}

/// Checks that this program can run on the schema. The outer error is one to wait for: the schema was never prepared,
/// or is being migrated now, as it is where everything is started at once.
async fn checked(db: &Database, schema: &Schema) -> Result<Result<(), DbError>, DbError> {
    let Err(misfit) = db.check_schema(schema).await else { return Ok(Ok(())) };
    if db.awaits_migrations().await? {
        return Err(misfit);
    }
    // The migrations may have ended in between.
    Ok(db.check_schema(schema).await)
}
