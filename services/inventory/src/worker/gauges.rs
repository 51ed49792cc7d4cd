//! Gauges of the stock on sale, read from the ledger.

use crate::{
    usecase::Inventory,
    worker::{in_time, pause},
};
use opentelemetry::global;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Measures until `stop`.
pub async fn run(inventory: Inventory, stop: CancellationToken) -> anyhow::Result<()> {
    let gauge = |name, about| global::meter("stampede.inventory").u64_gauge(name).with_description(about).build();
    let total = gauge("stampede_stock_total_units", "Units of all items on sale, or on sale within the hour");
    let committed = gauge("stampede_stock_committed_units", "Units of these that are taken, by the ledger");
    loop {
        if let Some(on_sale) = in_time("stock gauges", async { Ok(inventory.units_on_sale().await?) }).await {
            total.record(on_sale.total, &[]);
            committed.record(on_sale.committed, &[]);
        }
        if !pause(PERIOD, &stop).await {
            return Ok(());
        }
    }
}
