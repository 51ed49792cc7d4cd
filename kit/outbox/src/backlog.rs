//! Gauges of the unsent messages, measured on a task of their own.

use crate::rows;
use opentelemetry::{global, metrics::Gauge};
use stampede_db::Database;
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::sleep;

/// Time between two reads of the gauges.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

/// The gauges of one outbox.
struct Backlog {
    unsent: Gauge<u64>,
    oldest_age: Gauge<f64>,
}

/// Measures until it is dropped. Skips a measurement without a log line if the database fails: the relay logs that.
pub async fn watch(db: Database) {
    let meter = global::meter("stampede.outbox");
    let backlog = Backlog {
        unsent: meter
            .u64_gauge("stampede_outbox_unsent_messages")
            .with_description("Messages that Kafka has not acknowledged")
            .build(),
        oldest_age: meter
            .f64_gauge("stampede_outbox_oldest_unsent_age_seconds")
            .with_description("Age of the oldest message that Kafka has not acknowledged; 0 where there is none")
            .build(),
    };
    loop {
        backlog.measure(&db).await;
        sleep(GAUGE_INTERVAL).await;
    }
}

impl Backlog {
    async fn measure(&self, db: &Database) {
        let read = db.in_time("read_backlog", async {
            let mut conn = db.acquire().await?;
            rows::backlog(&mut conn).await
        });
        if let Ok((unsent, oldest_us)) = read.await {
            let age = oldest_us.map_or(0, |created| (Timestamp::now().micros() - created).max(0));
            self.unsent.record(unsent, &[]);
            self.oldest_age.record(Duration::from_micros(age.unsigned_abs()).as_secs_f64(), &[]);
        }
    }
}
