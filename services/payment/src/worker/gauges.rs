//! Gauges of the charges and refunds that wait for the provider or for an operator.

use crate::usecase::{NoteRefunds, ReconcileAttempts};
use opentelemetry::{global, metrics::Gauge};
use stampede_db::DbError;

/// The gauges. Cheap to clone.
#[derive(Clone)]
pub struct Gauges {
    reconcile: ReconcileAttempts,
    note_refunds: NoteRefunds,
    parked: Gauge<u64>,
    unknown: Gauge<u64>,
    unread: Gauge<u64>,
}

impl Gauges {
    /// Measures the counts of these use cases.
    pub fn new(reconcile: ReconcileAttempts, note_refunds: NoteRefunds) -> Self {
        let gauge = |name, about| global::meter("stampede.payment").u64_gauge(name).with_description(about).build();
        let parked = gauge("stampede_payments_parked", "Anomalies of charges and refunds that nobody has decided on");
        let unknown = gauge("stampede_payments_unknown", "Charges of unknown outcome, which are being looked up");
        let unread = gauge(
            "stampede_payments_unread_refunds",
            "Charges that were refunded by hand and that the provider does not show, or whose payment cannot be read",
        );
        Self { reconcile, note_refunds, parked, unknown, unread }
    }

    pub async fn measure(&self) -> Result<(), DbError> {
        self.unknown.record(self.reconcile.count_unknown().await?, &[]);
        self.parked.record(self.reconcile.count_parked().await?, &[]);
        self.unread.record(self.note_refunds.count_unread().await?, &[]);
        Ok(())
    }
}
