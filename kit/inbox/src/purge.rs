//! Deletes old inbox records, on a task of its own.

use crate::rows;
use stampede_db::Database;
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::sleep;

/// How long records are kept. A repeat older than that would be applied again; Kafka keeps messages for a day.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most records that one statement deletes.
const PURGE_BATCH: u32 = 5_000;
/// Pause when no old record is left.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// Pause while there are more: the consumer needs the database too.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_secs(1);

/// Purges until it is dropped.
pub async fn run(db: Database) {
    loop {
        sleep(purge(&db).await).await;
    }
}

/// Deletes one batch of old records. Returns the pause before the next.
async fn purge(db: &Database) -> Duration {
    let before_us = Timestamp::now().minus(RETENTION).micros();
    let purged = db.in_time("purge_inbox", async {
        let mut conn = db.acquire().await?;
        rows::purge(&mut conn, before_us, PURGE_BATCH).await
    });
    match purged.await {
        Ok(count) if count == u64::from(PURGE_BATCH) => PAUSE_BETWEEN_BATCHES,
        Ok(_) => PURGE_INTERVAL,
        Err(error) => {
            tracing::warn!(error.cause = %error, "old inbox records could not be purged");
            PURGE_INTERVAL
        }
    }
}
