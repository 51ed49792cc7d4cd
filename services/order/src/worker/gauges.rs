//! Gauges of the orders that have not ended.

use crate::usecase::CountOpenOrders;
use opentelemetry::{KeyValue, global, metrics::Gauge};
use stampede_db::DbError;

/// The gauges. Cheap to clone.
#[derive(Clone)]
pub struct Gauges {
    count: CountOpenOrders,
    open: Gauge<u64>,
}

impl Gauges {
    /// Measures the counts of this use case.
    pub fn new(count: CountOpenOrders) -> Self {
        let open = global::meter("stampede.order")
            .u64_gauge("stampede_orders_open")
            .with_description("Orders that have not ended, by state")
            .build();
        Self { count, open }
    }

    /// Measures once.
    pub async fn measure(&self) -> Result<(), DbError> {
        for (state, count) in self.count.run().await? {
            self.open.record(count, &[KeyValue::new("state", state.as_str())]);
        }
        Ok(())
    }
}
