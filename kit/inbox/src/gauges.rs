//! Gauges of a consumer: its lag, as the Kafka client counts it, and its parked keys.

use crate::rows;
use opentelemetry::{
    KeyValue, global,
    metrics::{Gauge, Meter},
};
use rdkafka::{ClientContext, Statistics, consumer::ConsumerContext, statistics::Topic};
use stampede_db::{Database, DbError};
use std::{collections::HashMap, time::Duration};
use tokio::time::sleep;

/// Time between two reads of the gauges.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

fn meter() -> Meter {
    global::meter("stampede.inbox")
}

/// Takes the statistics of the Kafka client.
pub struct Lag {
    lag: Gauge<u64>,
}

impl Lag {
    /// Records into the global meter as of this call.
    pub fn new() -> Self {
        let lag = meter()
            .u64_gauge("stampede_inbox_lag_messages")
            .with_description("Messages of a topic that this process has not read yet, of the partitions that it reads")
            .build();
        Self { lag }
    }
}

impl ClientContext for Lag {
    fn stats(&self, statistics: Statistics) {
        for (name, topic) in statistics.topics {
            self.lag.record(lag_of(&topic), &[KeyValue::new("topic", name)]);
        }
    }
}

impl ConsumerContext for Lag {}

/// Returns the lag of the partitions that this consumer reads; the client gives -1 for the others.
fn lag_of(topic: &Topic) -> u64 {
    topic.partitions.values().map(|partition| u64::try_from(partition.consumer_lag).unwrap_or(0)).sum()
}

/// Measures the parked keys of these topics until it is dropped. Skips a measurement without a log line if the database
/// fails: the consumer logs that.
pub async fn watch_parked(db: Database, topics: Vec<String>) {
    let parked = meter()
        .u64_gauge("stampede_inbox_parked_keys")
        .with_description("Keys whose messages wait behind a dead letter")
        .build();
    loop {
        let counted = db.in_time("count_parked", count_parked(&db));
        if let Ok(counts) = counted.await {
            for topic in &topics {
                let count = counts.get(topic).copied().unwrap_or(0);
                parked.record(count, &[KeyValue::new("topic", topic.clone())]);
            }
        }
        sleep(GAUGE_INTERVAL).await;
    }
}

async fn count_parked(db: &Database) -> Result<HashMap<String, u64>, DbError> {
    rows::count_parked(&mut *db.acquire().await?).await
}
