//! Counts reservations by outcome: a refusal is no failed call, so the metrics of calls do not show it.

use opentelemetry::{KeyValue, global, metrics::Counter};
use stampede_proto::inventory::v1::{ReservationResult, reservation_result::Outcome};

const REFUSAL_PREFIX: &str = "REFUSAL_REASON_";

/// The counter of answers by outcome: RESERVED, or the reason of the refusal.
#[derive(Clone)]
pub struct Outcomes {
    reservations: Counter<u64>,
}

impl Outcomes {
    /// Registers the counter at the current global meter.
    pub fn new() -> Self {
        let reservations = global::meter("stampede.inventory")
            .u64_counter("stampede_reservations")
            .with_description("Reservations, by what was answered")
            .build();
        let outcomes = Self { reservations };
        // Start at zero: the increase of a series does not include its first value.
        for outcome in ["RESERVED", "NOT_READY"] {
            outcomes.add(outcome, 0);
        }
        outcomes
    }

    fn add(&self, outcome: &'static str, count: u64) {
        self.reservations.add(count, &[KeyValue::new("outcome", outcome)]);
    }

    /// Counts the answers of one call.
    pub fn count(&self, results: &[ReservationResult]) {
        for result in results {
            self.add(name(result), 1);
        }
    }
}

fn name(result: &ReservationResult) -> &'static str {
    match &result.outcome {
        Some(Outcome::Refusal(refusal)) => refusal.reason().as_str_name().trim_start_matches(REFUSAL_PREFIX),
        Some(Outcome::Reserved(_)) | None => "RESERVED",
    }
}
