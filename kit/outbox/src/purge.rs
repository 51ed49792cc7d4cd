//! Deletes old messages, in a loop of its own: it may be slow, and nothing waits for it.

use crate::{
    rows::{self, Purged},
    shared::View,
};
use stampede_db::Database;
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long messages are kept after they were written, for the audit and for an investigation. Unsent messages are kept
/// until they are sent.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows of one statement.
const BATCH: u32 = 5_000;
/// Pause after a full batch.
const NEXT_BATCH: Duration = Duration::from_millis(100);
/// Pause after all old messages.
const INTERVAL: Duration = Duration::from_secs(60);
/// The relay that holds this partition purges all partitions, so that only one relay purges at a time.
const PARTITION: u16 = 0;

/// The purge of one relay.
pub struct Purge {
    db: Database,
    view: watch::Receiver<View>,
    /// No row is left up to this id: scans start here, and skip the deleted range.
    from: u64,
    /// The scan under way; `None` between two scans.
    scan: Option<Scan>,
}

#[derive(Debug, Clone, Copy)]
struct Scan {
    at: u64,
    has_kept: bool,
}

impl Purge {
    /// Returns the purge of the relay that has these leases.
    pub fn new(db: Database, view: watch::Receiver<View>) -> Self {
        Self { db, view, from: 0, scan: None }
    }

    /// Purges until `halt`.
    pub async fn run(&mut self, halt: &CancellationToken) {
        while halt.run_until_cancelled(self.wait_for_lease()).await.is_some() {
            let pause = self.batch().await;
            halt.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Waits until this relay holds the lease of [`PARTITION`].
    async fn wait_for_lease(&mut self) {
        let mine = self.view.wait_for(|view| view.leases.contains_key(&PARTITION)).await.is_ok();
        if !mine {
            // The relay is being dropped.
            std::future::pending::<()>().await;
        }
    }

    /// Deletes one batch. Returns the pause before the next one.
    pub async fn batch(&mut self) -> Duration {
        let now = Timestamp::now();
        let times_us = (now.minus(RETENTION).micros(), now.micros());
        let scan = self.scan.unwrap_or(Scan { at: self.from, has_kept: false });
        let purged = self
            .db
            .run("purge_outbox", |mut conn| async move { rows::purge(&mut conn, scan.at, times_us, BATCH).await });
        match purged.await {
            Ok(Purged { kept, last, is_full }) => {
                if !scan.has_kept {
                    self.from = kept.map_or(last, |kept| kept - 1);
                }
                let has_kept = scan.has_kept || kept.is_some();
                self.scan = is_full.then_some(Scan { at: last, has_kept });
                if is_full { NEXT_BATCH } else { INTERVAL }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "sent messages could not be purged");
                INTERVAL
            }
        }
    }
}
