//! Gauges of the stock on sale, read from the ledger.

use crate::usecase::ViewStock;
use opentelemetry::{global, metrics::Gauge};
use stampede_db::DbError;

/// The gauges. Cheap to clone.
#[derive(Clone)]
pub struct Gauges {
    view: ViewStock,
    total: Gauge<u64>,
    committed: Gauge<u64>,
}

impl Gauges {
    /// Measures this stock.
    pub fn new(view: ViewStock) -> Self {
        let gauge = |name, about| global::meter("stampede.inventory").u64_gauge(name).with_description(about).build();
        let total = gauge("stampede_stock_total_units", "Units of all items on sale, or on sale within the hour");
        let committed = gauge("stampede_stock_committed_units", "Units of these that are taken, by the ledger");
        Self { view, total, committed }
    }

    /// Measures once.
    pub async fn measure(&self) -> Result<(), DbError> {
        let on_sale = self.view.units_on_sale().await?;
        self.total.record(on_sale.total, &[]);
        self.committed.record(on_sale.committed, &[]);
        Ok(())
    }
}
