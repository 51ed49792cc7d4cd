//! Gauges of the payments that are in doubt, read from the database.

use crate::usecase::Payments;
use opentelemetry::global;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Measures until `stop`. A database that does not answer leaves the gauge as it was: others tell of it.
pub async fn measure(payments: Payments, stop: CancellationToken) -> anyhow::Result<()> {
    let unknown = global::meter("stampede.payment")
        .u64_gauge("stampede_payments_unknown")
        .with_description("Charges of which nobody knows yet whether they were made")
        .build();
    loop {
        if let Ok(count) = payments.count_unknown().await {
            unknown.record(count, &[]);
        }
        if tokio::time::timeout(PERIOD, stop.cancelled()).await.is_ok() {
            return Ok(());
        }
    }
}
