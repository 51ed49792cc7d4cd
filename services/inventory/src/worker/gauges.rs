//! Gauges of the stock on sale: total and committed units by the ledger, held units by Redis.

use crate::usecase::{Error, ViewStock};
use opentelemetry::{global, metrics::Gauge};

/// The gauges. Cheap to clone.
#[derive(Clone)]
pub struct Gauges {
    view: ViewStock,
    total: Gauge<u64>,
    committed: Gauge<u64>,
    held: Gauge<u64>,
}

impl Gauges {
    /// Registers the gauges, which measure this stock.
    pub fn new(view: ViewStock) -> Self {
        let gauge = |name, about| global::meter("stampede.inventory").u64_gauge(name).with_description(about).build();
        let total = gauge("stampede_stock_total_units", "Units of all items on sale, or on sale within the hour");
        let committed = gauge("stampede_stock_committed_units", "Units of these that are taken, by the ledger");
        let held = gauge("stampede_stock_held_units", "Units of these that are on hold for orders, by Redis");
        Self { view, total, committed, held }
    }

    /// Records the gauges once. Without Redis the held units keep their last value.
    pub async fn measure(&self) -> Result<(), Error> {
        let items = self.view.on_sale().await?;
        let sum = |units: fn(&crate::domain::Item) -> i32| {
            items.iter().map(|item| u64::from(units(item).unsigned_abs())).sum()
        };
        self.total.record(sum(|item| item.shelf.total_units), &[]);
        self.committed.record(sum(|item| item.committed.units), &[]);
        self.held.record(self.view.held_units(&items).await?, &[]);
        Ok(())
    }
}
