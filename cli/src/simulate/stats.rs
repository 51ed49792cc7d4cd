//! Counts the outcomes of all requests, their latencies, the acknowledgements and the anomalies.

use super::{
    latency::{Latency, Percentiles, Rate, RateMeter},
    step::{Answer, Step, Timed},
};
use crate::acknowledged::Acknowledged;
use serde::Serialize;
use stampede_vocab::{CouponId, OrderId, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Number of unexpected outcomes that are kept with all details.
const KEPT: usize = 20;

/// An outcome that the crowd did not expect.
#[derive(Debug, Clone, Serialize)]
pub struct Anomaly {
    /// The buyer's step; empty where it is about the sale as a whole.
    pub step: Option<Step>,
    /// The buyer, by number.
    pub buyer: Option<usize>,
    /// Time of it, in milliseconds from the opening.
    pub at_ms: Option<i64>,
    /// The outcome, by its name in the report.
    pub outcome: String,
    /// The text of the problem.
    pub detail: String,
    /// The gateway's id of the request.
    pub trace_id: Option<String>,
}

impl Anomaly {
    /// Returns one about the sale as a whole.
    pub fn of_sale(outcome: &str, detail: impl Into<String>) -> Self {
        let (step, buyer, at_ms, trace_id) = (None, None, None, None);
        Self { step, buyer, at_ms, outcome: outcome.into(), detail: detail.into(), trace_id }
    }
}

#[derive(Default)]
struct Figures {
    arrivals: usize,
    outcomes: BTreeMap<Step, BTreeMap<String, u64>>,
    latencies: BTreeMap<Timed, Latency>,
    sent_late: Latency,
    tried_again: BTreeMap<String, u64>,
    acknowledged: Acknowledged,
    claims: RateMeter,
    orders: RateMeter,
    anomalies: Vec<Anomaly>,
    anomaly_counts: BTreeMap<String, u64>,
}

/// Counts for all buyers at once.
#[derive(Default)]
pub struct Stats(Mutex<Figures>);

/// Figures while the sale runs.
pub struct Glance {
    /// Buyers who have ordered.
    pub arrivals: usize,
    pub coupons: usize,
    pub orders: usize,
    pub anomalies: u64,
}

/// Figures when the sale is over.
pub struct Totals {
    /// Number of outcomes of each kind, by step.
    pub outcomes: BTreeMap<Step, BTreeMap<String, u64>>,
    pub latencies: BTreeMap<Timed, Percentiles>,
    /// Delay of requests, from when they were due.
    pub sent_late: Percentiles,
    /// Requests that were sent again, by the reason.
    pub tried_again: BTreeMap<String, u64>,
    pub acknowledged: Acknowledged,
    /// Rate of issued coupons.
    pub claims: Rate,
    /// Rate of accepted orders.
    pub orders: Rate,
    /// The first unexpected outcomes.
    pub anomalies: Vec<Anomaly>,
    /// Number of unexpected outcomes of each kind.
    pub anomaly_counts: BTreeMap<String, u64>,
}

impl Stats {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        // Counts stay true even if a buyer's task has panicked, which is reported by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a buyer who has come to order.
    pub fn arrived(&self) {
        self.figures().arrivals += 1;
    }

    /// Counts the outcome of a step.
    pub fn count(&self, step: Step, outcome: &str) {
        let mut figures = self.figures();
        let outcomes = figures.outcomes.entry(step).or_default();
        match outcomes.get_mut(outcome) {
            Some(count) => *count += 1,
            None => drop(outcomes.insert(outcome.to_owned(), 1)),
        }
    }

    /// Records the latency of an answer, from when its step was due.
    pub fn answered(&self, step: Step, answer: Answer, took: Duration) {
        self.took(Timed::Step(step, answer), took);
    }

    pub fn took(&self, timed: Timed, took: Duration) {
        self.figures().latencies.entry(timed).or_default().record(took);
    }

    /// Records how late a request was sent, from when it was due.
    pub fn sent(&self, late: Duration) {
        self.figures().sent_late.record(late);
    }

    pub fn tried_again(&self, reason: &str) {
        *self.figures().tried_again.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts an issued coupon. Returns whether it is a new one.
    pub fn coupon_acknowledged(&self, coupon: CouponId, at: Timestamp) -> bool {
        let mut figures = self.figures();
        let new = figures.acknowledged.coupons.insert(coupon);
        if new {
            figures.claims.record(at);
        }
        new
    }

    /// Counts an accepted order. Returns whether it is a new one.
    pub fn order_acknowledged(&self, order: OrderId, at: Timestamp) -> bool {
        let mut figures = self.figures();
        let new = figures.acknowledged.orders.insert(order);
        if new {
            figures.orders.record(at);
        }
        new
    }

    /// Counts an anomaly, and keeps the first ones whole.
    pub fn record_anomaly(&self, anomaly: Anomaly) {
        let mut figures = self.figures();
        *figures.anomaly_counts.entry(anomaly.outcome.clone()).or_default() += 1;
        if figures.anomalies.len() < KEPT {
            figures.anomalies.push(anomaly);
        }
    }

    /// Returns the figures as they are now.
    pub fn glance(&self) -> Glance {
        let figures = self.figures();
        Glance {
            arrivals: figures.arrivals,
            coupons: figures.acknowledged.coupons.len(),
            orders: figures.acknowledged.orders.len(),
            anomalies: figures.anomaly_counts.values().sum(),
        }
    }

    /// Returns the latencies since the last call, and resets them. Leaves out kinds without one.
    pub fn latencies_lately(&self) -> BTreeMap<Timed, Percentiles> {
        let mut figures = self.figures();
        let lately = figures.latencies.iter_mut().map(|(timed, latency)| (*timed, latency.take_lately()));
        lately.filter(|(_, percentiles)| percentiles.count > 0).collect()
    }

    /// Returns the figures of the whole sale.
    pub fn totals(&self) -> Totals {
        let mut figures = self.figures();
        Totals {
            outcomes: figures.outcomes.clone(),
            latencies: figures.latencies.iter().map(|(timed, latency)| (*timed, latency.percentiles())).collect(),
            sent_late: figures.sent_late.percentiles(),
            tried_again: figures.tried_again.clone(),
            acknowledged: figures.acknowledged.clone(),
            claims: figures.claims.rate(),
            orders: figures.orders.rate(),
            anomalies: figures.anomalies.clone(),
            anomaly_counts: figures.anomaly_counts.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_twice_counts_once() {
        let stats = Stats::default();
        let coupon = CouponId::from_uuid(uuid::Uuid::from_u128(7));
        assert!(stats.coupon_acknowledged(coupon, Timestamp::from_micros(1)));
        assert!(!stats.coupon_acknowledged(coupon, Timestamp::from_micros(2)));
        assert_eq!(stats.totals().claims.count, 1);
    }

    #[test]
    fn all_anomalies_are_counted_but_only_the_first_are_kept() {
        let stats = Stats::default();
        for _ in 0..25 {
            stats.record_anomaly(Anomaly::of_sale("ODD", "very"));
        }
        let totals = stats.totals();
        assert_eq!((totals.anomaly_counts.values().sum::<u64>(), totals.anomalies.len()), (25, KEPT));
    }

    #[test]
    fn refusals_are_timed_by_themselves() {
        let stats = Stats::default();
        stats.answered(Step::Order, Answer::Accepted, Duration::from_millis(80));
        stats.answered(Step::Order, Answer::Refused, Duration::from_millis(2));
        stats.answered(Step::ComeBack, Answer::Refused, Duration::from_millis(3));
        let latencies = stats.totals().latencies;
        let p50 = |answer| latencies[&Timed::Step(Step::Order, answer)].p50_ms.round();
        assert!((p50(Answer::Accepted) - 80.0).abs() < 1.0 && (p50(Answer::Refused) - 2.0).abs() < 1.0);
        assert_eq!(latencies.len(), 3);
    }

    #[test]
    fn outcomes_are_counted_by_step() {
        let stats = Stats::default();
        stats.count(Step::Order, "SOLD_OUT");
        stats.count(Step::Order, "SOLD_OUT");
        stats.count(Step::Claim, "SOLD_OUT");
        let outcomes = stats.totals().outcomes;
        assert_eq!((outcomes[&Step::Order]["SOLD_OUT"], outcomes[&Step::Claim]["SOLD_OUT"]), (2, 1));
    }
}
