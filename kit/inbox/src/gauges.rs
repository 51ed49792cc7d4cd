//! Gauges of a consumer: its lag, its dead letters and its parked keys.

use crate::{letter, progress::Progress, rows};
use opentelemetry::{KeyValue, global, metrics::Gauge};
use stampede_db::{Database, DbError};
use std::{collections::HashMap, time::Duration};
use tokio::time::sleep;

/// Time between two measurements.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

struct Gauges {
    lag_messages: Gauge<u64>,
    lag: Gauge<f64>,
    parked: Gauge<u64>,
    letters: Gauge<u64>,
    stands_still: Gauge<u64>,
}

impl Gauges {
    /// Records into the global meter as of this call.
    fn new() -> Self {
        let meter = global::meter("stampede.inbox");
        let count =
            |name: &'static str, description: &'static str| meter.u64_gauge(name).with_description(description).build();
        Self {
            lag_messages: count(
                "stampede_inbox_lag_messages",
                "Messages of a topic that this process has not read yet, of the partitions that it reads",
            ),
            lag: meter
                .f64_gauge("stampede_inbox_lag_seconds")
                .with_description("Age of what this process is applying of a topic, or time since the last it applied")
                .build(),
            parked: count("stampede_inbox_parked_keys", "Keys whose messages wait behind a dead letter"),
            letters: count("stampede_inbox_dead_letters_waiting", "Dead letters that nobody has decided on"),
            stands_still: count(
                "stampede_inbox_stands_still",
                "1 while this process has applied nothing of its batch, or was in no group, for half a minute",
            ),
        }
    }

    fn record(&self, progress: &Progress, topics: &[String], stored: Option<&Counts>) {
        self.stands_still.record(u64::from(progress.stands_still()), &[]);
        for topic in topics {
            let labels = [KeyValue::new("topic", topic.clone())];
            self.lag_messages.record(progress.lag_messages(topic), &labels);
            self.lag.record(progress.lag_in_time(topic).as_secs_f64(), &labels);
            if let Some(counts) = stored {
                self.parked.record(counts.parked.get(topic).copied().unwrap_or(0), &labels);
                self.letters.record(counts.letters.get(topic).copied().unwrap_or(0), &labels);
            }
        }
    }
}

/// Counts in the database, by topic.
struct Counts {
    parked: HashMap<String, u64>,
    letters: HashMap<String, u64>,
}

/// Measures until it is dropped. Skips counts when the database does not answer: the consumer logs that.
pub async fn measure(db: Database, progress: Progress, topics: Vec<String>) {
    let gauges = Gauges::new();
    loop {
        let counts = count(&db).await.ok();
        gauges.record(&progress, &topics, counts.as_ref());
        sleep(GAUGE_INTERVAL).await;
    }
}

async fn count(db: &Database) -> Result<Counts, DbError> {
    db.run("count_dead_letters", |mut conn| async move {
        Ok(Counts { parked: rows::count_parked(&mut conn).await?, letters: letter::count_open(&mut conn).await? })
    })
    .await
}
