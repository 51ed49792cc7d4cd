//! Notes when transitions could be seen, behind those who make them.

use crate::usecase::{NoteSeen, Seen};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Time until a transition is noted: those of the same instant are made before, and not slowed down by it.
const PAUSE: Duration = Duration::from_millis(500);

/// Notes what is handed over until `stop`, and then what is left. It has a loop of its own because it goes by no
/// rounds.
pub async fn note_seen(mut note: NoteSeen, stop: CancellationToken) -> anyhow::Result<()> {
    while let Some(Some(seen)) = stop.run_until_cancelled(note.next()).await {
        stop.run_until_cancelled(sleep(PAUSE)).await;
        write(&note, seen).await;
        write_left(&mut note).await;
    }
    write_left(&mut note).await;
    Ok(())
}

async fn write_left(note: &mut NoteSeen) {
    while let Some(seen) = note.left() {
        write(note, seen).await;
    }
}

async fn write(note: &NoteSeen, seen: Seen) {
    if let Err(error) = note.run(seen).await {
        tracing::warn!(error.cause = %error, "when events could be seen to open or close is not noted");
    }
}
