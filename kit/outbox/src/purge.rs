//! Deletes old messages, on a loop of its own: it may be slow, and nothing waits for it.

use crate::{
    desk::View,
    rows::{self, Purged},
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
const EVERY: Duration = Duration::from_secs(60);
/// The relay that holds this partition purges those of all, so that one does at a time.
const PARTITION: u16 = 0;

/// The purge of one relay.
pub struct Purge {
    db: Database,
    view: watch::Receiver<View>,
    /// Nothing at all is left up to here, so that no look walks over what was deleted.
    from: u64,
    /// Where the look under way goes on, and whether it has kept anything; `None` between two.
    look: Option<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: u64,
    has_kept: bool,
}

impl Purge {
    /// For the relay that has these leases.
    pub fn new(db: Database, view: watch::Receiver<View>) -> Self {
        Self { db, view, from: 0, look: None }
    }

    /// Purges until `halt`.
    pub async fn run(&mut self, halt: &CancellationToken) {
        while halt.run_until_cancelled(self.turn()).await.is_some() {
            let pause = self.batch().await;
            halt.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Waits until it is this relay's turn.
    async fn turn(&mut self) {
        let mine = self.view.wait_for(|view| view.leases.contains_key(&PARTITION)).await.is_ok();
        if !mine {
            // The relay is being dropped.
            std::future::pending::<()>().await;
        }
    }

    /// Deletes one batch. Returns the pause before the next one.
    async fn batch(&mut self) -> Duration {
        let now = Timestamp::now();
        let times_us = (now.minus(RETENTION).micros(), now.micros());
        let look = self.look.unwrap_or(Look { at: self.from, has_kept: false });
        let purged = self
            .db
            .run("purge_outbox", |mut conn| async move { rows::purge(&mut conn, look.at, times_us, BATCH).await });
        match purged.await {
            Ok(Purged { kept, last, is_full }) => {
                if !look.has_kept {
                    self.from = kept.map_or(last, |kept| kept - 1);
                }
                let has_kept = look.has_kept || kept.is_some();
                self.look = is_full.then_some(Look { at: last, has_kept });
                if is_full { NEXT_BATCH } else { EVERY }
            }
            Err(error) => {
                tracing::warn!(error.cause = %error, "sent messages could not be purged");
                EVERY
            }
        }
    }
}
