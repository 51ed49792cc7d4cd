//! Gauges of the orders that have not ended.

use crate::usecase::CountOpenOrders;
use opentelemetry::{KeyValue, global, metrics::Gauge};
use stampede_db::DbError;

/// The gauges. Cheap to clone.
#[derive(Clone)]
pub struct Gauges {
    count: CountOpenOrders,
    open: Gauge<u64>,
    unanswered: Gauge<u64>,
}

impl Gauges {
    /// Measures the counts of this use case.
    pub fn new(count: CountOpenOrders) -> Self {
        let meter = global::meter("stampede.order");
        let open =
            meter.u64_gauge("stampede_orders_open").with_description("Orders that have not ended, by state").build();
        let unanswered = meter
            .u64_gauge("stampede_orders_unanswered")
            .with_description("Orders that have asked another service 16 times or more, and have no answer")
            .build();
        Self { count, open, unanswered }
    }

    pub async fn measure(&self) -> Result<(), DbError> {
        for (state, count) in self.count.run().await? {
            self.open.record(count, &[KeyValue::new("state", state.as_str())]);
        }
        self.unanswered.record(self.count.unanswered().await?, &[]);
        Ok(())
    }
}
