//! Looks for orders whose time to be paid is over.

use crate::usecase::ExpireOrders;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Sweeps once a period until `stop`. A sweep that fails is logged, and the next one tries again.
pub async fn sweep(expire: ExpireOrders, period: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match expire.run().await {
            Ok(0) => {}
            Ok(expired) => tracing::info!(orders.expired = expired, "orders expired"),
            Err(error) => tracing::warn!(%error, "the deadline sweep failed, trying again"),
        }
    }
    Ok(())
}
