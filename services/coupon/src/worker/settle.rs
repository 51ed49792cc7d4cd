//! Settles stored claims in Redis as they come.

use crate::usecase::SettleClaims;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`. What is left then is settled by the sweep of unfinished claims.
pub async fn settle(mut claims: SettleClaims, stop: CancellationToken) -> anyhow::Result<()> {
    stop.run_until_cancelled(async move { while claims.settle_next().await {} }).await;
    Ok(())
}
