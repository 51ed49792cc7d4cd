//! What came of everything that was sent: counts, latencies, what was acknowledged, and what nobody expected.

use super::latency::{Latency, Pace, Percentiles, Rate};
use serde::Serialize;
use stampede_vocab::{CouponId, OrderId, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How many unexpected outcomes are kept with all they say.
const KEPT: usize = 20;

/// What a buyer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Claims a coupon.
    Claim,
    /// Places an order.
    Order,
    /// Pays it.
    Payment,
    /// Cancels it.
    Cancel,
}

impl Step {
    /// All of them, in the order in which a buyer takes them.
    pub const ALL: [Self; 4] = [Self::Claim, Self::Order, Self::Payment, Self::Cancel];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Cancel => "cancel",
        }
    }
}

/// Something that the crowd did not expect.
#[derive(Debug, Clone, Serialize)]
pub struct Surprise {
    /// What was done; empty where it is about the sale as a whole.
    pub step: Option<Step>,
    /// The buyer, by number.
    pub buyer: Option<usize>,
    /// When, in milliseconds from the opening.
    pub at_ms: Option<i64>,
    /// What came of it.
    pub outcome: String,
    /// What it says.
    pub detail: String,
    /// The gateway's id of the request.
    pub request_id: Option<String>,
}

impl Surprise {
    /// One about the sale as a whole.
    pub fn of_sale(outcome: &str, detail: impl Into<String>) -> Self {
        let (step, buyer, at_ms, request_id) = (None, None, None, None);
        Self { step, buyer, at_ms, outcome: outcome.into(), detail: detail.into(), request_id }
    }
}

/// All that was acknowledged to a buyer: none of it may ever be lost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Acknowledged {
    /// Accepted orders.
    pub orders: BTreeSet<OrderId>,
    /// Issued coupons.
    pub coupons: BTreeSet<CouponId>,
}

#[derive(Default)]
struct Figures {
    arrivals: usize,
    outcomes: BTreeMap<Step, BTreeMap<String, u64>>,
    latencies: [Latency; Step::ALL.len()],
    tried_again: BTreeMap<String, u64>,
    acknowledged: Acknowledged,
    claims: Pace,
    orders: Pace,
    surprises: Vec<Surprise>,
    surprise_count: u64,
}

/// Counts for all buyers at once.
#[derive(Default)]
pub struct Tally(Mutex<Figures>);

/// Figures while the sale runs.
pub struct Glance {
    /// Buyers who have ordered.
    pub arrivals: usize,
    /// Coupons issued.
    pub coupons: usize,
    /// Orders accepted.
    pub orders: usize,
    /// Unexpected outcomes.
    pub surprises: u64,
}

/// Figures when the sale is over.
pub struct Totals {
    /// How often each came of each step.
    pub outcomes: BTreeMap<Step, BTreeMap<String, u64>>,
    /// How long each step took, from when it was due.
    pub latencies: BTreeMap<Step, Percentiles>,
    /// Requests that were sent again, by the reason.
    pub tried_again: BTreeMap<String, u64>,
    /// What was acknowledged.
    pub acknowledged: Acknowledged,
    /// How fast coupons were issued.
    pub claims: Rate,
    /// How fast orders were accepted.
    pub orders: Rate,
    /// The first unexpected outcomes.
    pub surprises: Vec<Surprise>,
    /// All unexpected outcomes.
    pub surprise_count: u64,
}

impl Tally {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        // Counts stay true even if a buyer's task has panicked, which is reported by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buyer has come to order.
    pub fn arrived(&self) {
        self.figures().arrivals += 1;
    }

    /// A step has come to an outcome.
    pub fn count(&self, step: Step, outcome: &str) {
        let mut figures = self.figures();
        let outcomes = figures.outcomes.entry(step).or_default();
        match outcomes.get_mut(outcome) {
            Some(count) => *count += 1,
            None => drop(outcomes.insert(outcome.to_owned(), 1)),
        }
    }

    /// A step took so long, from when it was due.
    pub fn took(&self, step: Step, took: Duration) {
        self.figures().latencies[step as usize].record(took);
    }

    /// A request is sent again.
    pub fn tried_again(&self, reason: &str) {
        *self.figures().tried_again.entry(reason.to_owned()).or_default() += 1;
    }

    /// A coupon was issued. Tells whether it is a new one.
    pub fn coupon_acknowledged(&self, coupon: CouponId, at: Timestamp) -> bool {
        let mut figures = self.figures();
        let new = figures.acknowledged.coupons.insert(coupon);
        if new {
            figures.claims.record(at);
        }
        new
    }

    /// An order was accepted. Tells whether it is a new one.
    pub fn order_acknowledged(&self, order: OrderId, at: Timestamp) -> bool {
        let mut figures = self.figures();
        let new = figures.acknowledged.orders.insert(order);
        if new {
            figures.orders.record(at);
        }
        new
    }

    /// Something that the crowd did not expect has come up.
    pub fn surprised(&self, surprise: Surprise) {
        let mut figures = self.figures();
        figures.surprise_count += 1;
        if figures.surprises.len() < KEPT {
            figures.surprises.push(surprise);
        }
    }

    /// Figures as they are now.
    pub fn glance(&self) -> Glance {
        let figures = self.figures();
        Glance {
            arrivals: figures.arrivals,
            coupons: figures.acknowledged.coupons.len(),
            orders: figures.acknowledged.orders.len(),
            surprises: figures.surprise_count,
        }
    }

    /// How long each step took since this was last asked; only those that there were.
    pub fn latencies_lately(&self) -> BTreeMap<Step, Percentiles> {
        let mut figures = self.figures();
        let lately = Step::ALL.map(|step| (step, figures.latencies[step as usize].take_lately()));
        lately.into_iter().filter(|(_, percentiles)| percentiles.count > 0).collect()
    }

    /// Figures of the whole sale.
    pub fn totals(&self) -> Totals {
        let mut figures = self.figures();
        let latencies = Step::ALL.map(|step| (step, figures.latencies[step as usize].percentiles()));
        Totals {
            outcomes: figures.outcomes.clone(),
            latencies: latencies.into_iter().filter(|(_, percentiles)| percentiles.count > 0).collect(),
            tried_again: figures.tried_again.clone(),
            acknowledged: figures.acknowledged.clone(),
            claims: figures.claims.rate(),
            orders: figures.orders.rate(),
            surprises: figures.surprises.clone(),
            surprise_count: figures.surprise_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_twice_counts_once() {
        let tally = Tally::default();
        let coupon = CouponId::from_uuid(uuid::Uuid::from_u128(7));
        assert!(tally.coupon_acknowledged(coupon, Timestamp::from_micros(1)));
        assert!(!tally.coupon_acknowledged(coupon, Timestamp::from_micros(2)));
        assert_eq!(tally.totals().claims.count, 1);
    }

    #[test]
    fn all_surprises_are_counted_but_only_the_first_are_kept() {
        let tally = Tally::default();
        for _ in 0..25 {
            tally.surprised(Surprise::of_sale("ODD", "very"));
        }
        let totals = tally.totals();
        assert_eq!((totals.surprise_count, totals.surprises.len()), (25, KEPT));
    }

    #[test]
    fn outcomes_are_counted_by_step() {
        let tally = Tally::default();
        tally.count(Step::Order, "SOLD_OUT");
        tally.count(Step::Order, "SOLD_OUT");
        tally.count(Step::Claim, "SOLD_OUT");
        let outcomes = tally.totals().outcomes;
        assert_eq!((outcomes[&Step::Order]["SOLD_OUT"], outcomes[&Step::Claim]["SOLD_OUT"]), (2, 1));
    }
}
