//! Records when committed transitions could be seen, asynchronously.

use crate::usecase::{NoteSeen, Seen};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Delay before transitions are recorded, so that it does not slow down those of the same instant.
const DELAY: Duration = Duration::from_millis(500);

/// Records queued transitions until `stop`, and then those that are left. It has its own loop because it has no rounds.
pub async fn note_seen(mut note: NoteSeen, stop: CancellationToken) -> anyhow::Result<()> {
    while let Some(Some(seen)) = stop.run_until_cancelled(note.next()).await {
        stop.run_until_cancelled(sleep(DELAY)).await;
        write(&note, seen).await;
        drain(&mut note).await;
    }
    drain(&mut note).await;
    Ok(())
}

async fn drain(note: &mut NoteSeen) {
    while let Some(seen) = note.try_next() {
        write(note, seen).await;
    }
}

async fn write(note: &NoteSeen, seen: Seen) {
    if let Err(error) = note.run(seen).await {
        tracing::warn!(error.cause = %error, "when events could be seen to open or close is not noted");
    }
}
