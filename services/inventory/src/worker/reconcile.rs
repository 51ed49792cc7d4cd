//! Compares Redis with the ledger again and again, so that whatever Redis loses comes back by itself.

use crate::{
    usecase::{Inventory, LedgerVersions},
    worker::{in_time, pause},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`. The first round is at once: Redis may have been lost while nobody looked.
pub async fn run(inventory: Inventory, interval: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let mut seen = LedgerVersions::new();
    loop {
        let round = async { Ok(inventory.reconcile_all(&seen).await?) };
        if let Some(versions) = in_time("reconciler", round).await {
            seen = versions;
        }
        if !pause(interval, &stop).await {
            return Ok(());
        }
    }
}
