//! Notes when transitions could be seen, behind those who make them.

use crate::usecase::{NoteSeen, Seen};
use tokio_util::sync::CancellationToken;

/// Notes what is handed over until `stop`, and then what is left. It has a loop of its own because it goes by no
/// rounds.
pub async fn note_seen(mut note: NoteSeen, stop: CancellationToken) -> anyhow::Result<()> {
    while let Some(Some(seen)) = stop.run_until_cancelled(note.next()).await {
        write(&note, seen).await;
    }
    while let Some(seen) = note.left() {
        write(&note, seen).await;
    }
    Ok(())
}

async fn write(note: &NoteSeen, seen: Seen) {
    if let Err(error) = note.run(seen).await {
        tracing::warn!(error.cause = %error, "when events could be seen to open or close is not noted");
    }
}
