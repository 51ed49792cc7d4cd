//! Gives back holds that nobody needs: asks the ledger, and then the order service, about holds that are old.

use crate::{
    client::Orders,
    usecase::{HoldAges, Inventory, Sweep},
    worker::{in_time, pause},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`.
pub async fn run(
    inventory: Inventory,
    orders: Orders,
    ages: HoldAges,
    interval: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut sweep = Sweep::default();
    while pause(interval, &stop).await {
        let released = in_time("orphan sweep", round(&inventory, &orders, &mut sweep, ages)).await;
        if let Some(released @ 1..) = released {
            tracing::info!(hold.count = released, "holds that no order needs were given back");
        }
    }
    Ok(())
}

/// Returns how many holds were given back.
async fn round(inventory: &Inventory, orders: &Orders, sweep: &mut Sweep, ages: HoldAges) -> anyhow::Result<u32> {
    let mut released = 0;
    for aged in inventory.aged_holds(sweep, ages).await? {
        let standings = orders.standings(&aged.orders()).await?;
        released += inventory.release_orphans(&aged, &standings, ages).await?;
    }
    Ok(released)
}
