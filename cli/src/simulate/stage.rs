//! Shared state of all buyers of a sale: its resources, their tokens, and the counters.

use super::{
    client::{Client, Failure},
    expect::{Expectations, Intent},
    follow::Follow,
    plan::Plan,
    stats::{Anomaly, Stats},
    step::{Answer, Step},
    timeline::Timeline,
};
use http::HeaderValue;
use stampede_vocab::{CampaignId, CouponId, EventId, ItemId};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::Instant;

/// A sale and its crowd, ready to start.
pub struct Stage {
    pub client: Client,
    pub stats: Arc<Stats>,
    /// The known orders.
    pub follow: Follow,
    pub timeline: Timeline,
    pub plan: Plan,
    /// Each buyer's value of the header `authorization`.
    pub tokens: Vec<HeaderValue>,
    /// Each buyer's coupon, once they have one.
    pub coupons: Vec<OnceLock<CouponId>>,
    pub event: EventId,
    /// Its items, in the order of the sale file.
    pub items: Vec<ItemId>,
    /// Units of each that one buyer may have.
    pub limits: Vec<u32>,
    pub campaign: Option<CampaignId>,
    /// The refusals that are expected of this sale.
    pub expectations: Expectations,
    /// Pause between two visits of a buyer who comes back.
    pub come_back_every: Duration,
}

impl Stage {
    /// Counts the refusal of a request of a buyer that was `due`.
    pub fn refused(&self, buyer: usize, intent: Intent<'_>, due: Instant, failure: &Failure) {
        let step = intent.step();
        self.stats.answered(step, Answer::Refused, due.elapsed());
        self.stats.count(step, failure.reason());
        if !self.expectations.allow(intent, failure, self.timeline.now(), self.timeline.close_time) {
            self.record_anomaly(buyer, step, failure.reason(), failure.detail(), failure.trace_id());
        }
    }

    pub fn record_anomaly(&self, buyer: usize, step: Step, outcome: &str, detail: &str, trace_id: Option<&str>) {
        self.stats.record_anomaly(Anomaly {
            step: Some(step),
            buyer: Some(buyer),
            at_ms: Some(self.timeline.since_opening_ms(Instant::now())),
            outcome: outcome.to_owned(),
            detail: detail.to_owned(),
            trace_id: trace_id.map(str::to_owned),
        });
    }
}
