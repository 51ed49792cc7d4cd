//! Limits on what callers do: how often by user and by address, and how many orders they may have open.
//!
//! Acts are counted in Redis, so the limits hold for all gateways together. Where Redis does not answer at once, acts
//! are let through and counted as such: a limit protects a sale, and must not stop one.
//!
//! The caller was authenticated and the request was read before. So a refusal reveals no secret, and a request that
//! makes no sense costs its caller nothing.

mod meters;
mod queue;
mod rules;
mod tab;

pub use self::rules::Act;

use self::{
    meters::{By, Meters},
    queue::Queue,
    rules::Rate,
};
use stampede_chassis::{Block, Offenders};
use stampede_lua::{
    Redis,
    gate::{Admission, Bucket, OpenOrders, Question},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::OrderId;
use std::{fmt::Display, sync::Arc, time::Duration};

/// Shortest retry delay of a refusal.
const LEAST_RETRY: Duration = Duration::from_secs(1);

/// Lets acts through, or refuses them.
pub struct Acts {
    redis: Redis,
    queue: Queue,
    factor: u32,
    meters: Arc<Meters>,
    offenders: Offenders,
}

/// The caller of an act, as far as the limits know them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// The user, or the login where no user is known.
    pub token: Option<&'a str>,
    /// The address that the request is from.
    pub block: Option<Block>,
    /// The order that is acted on.
    pub order: Option<OrderId>,
    /// The order that is placed.
    pub placing: Option<OrderId>,
}

impl Who<'_> {
    /// Returns the owner of the limits of this kind; `None` where it is not known.
    fn subject(&self, by: By) -> Option<&dyn Display> {
        match by {
            By::Order => self.order.as_ref().map(|order| order as &dyn Display),
            By::Token => self.token.as_ref().map(|token| token as &dyn Display),
            By::Address => self.block.as_ref().map(|block| block as &dyn Display),
        }
    }
}

impl Acts {
    /// Counts in `redis`, from the current runtime, and lets an act through if that does not answer within
    /// `longest_wait`. Every limit is `factor` times what the rules say; 0 for no limits.
    pub fn new(redis: Redis, factor: u32, longest_wait: Duration) -> Self {
        let meters = Arc::new(Meters::new());
        let queue = Queue::new(redis.clone(), Arc::clone(&meters), longest_wait);
        Self { queue, redis, factor, meters, offenders: Offenders::default() }
    }

    /// Counts one act; fails with `THROTTLED` if there were too many.
    pub async fn admit(&self, act: Act, who: &Who<'_>) -> Result<(), Problem> {
        if self.factor == 0 {
            return Ok(());
        }
        let buckets: Vec<_> =
            bounds(act, who).map(|(by, rate, subject)| self.bucket(act, by, rate, subject, who.placing)).collect();
        if buckets.is_empty() {
            return Ok(());
        }
        let (bucket, wait, detail) = match self.queue.ask(Question::Act(buckets)).await {
            None | Some(Admission::Admitted) => return Ok(()),
            Some(Admission::Throttled { bucket, wait }) => (bucket, wait, "there were too many of these"),
            Some(Admission::Open { bucket, wait }) => {
                (bucket, wait, "too many orders are open: pay or cancel one of them")
            }
        };
        let by = bounds(act, who).nth(bucket).map_or(By::Address, |(by, ..)| by);
        if let Some(block) = who.block.filter(|_| by == By::Address) {
            self.offenders.refused(block, act.name());
        }
        Err(self.refuse(act, by, wait, detail))
    }

    fn bucket(&self, act: Act, by: By, rate: Rate, subject: &dyn Display, placing: Option<OrderId>) -> Bucket {
        let keys = self.redis.keys();
        let bucket = Bucket::new(keys, subject, act.name(), self.times(rate.burst), rate.interval / self.factor);
        match (placing, rules::most_open(by)) {
            (Some(order), Some(most)) => bucket.bounding(OpenOrders::of(keys, subject), self.times(most), order),
            _ => bucket,
        }
    }

    fn times(&self, count: u32) -> u64 {
        u64::from(count) * u64::from(self.factor)
    }

    fn refuse(&self, act: Act, by: By, wait: Duration, detail: &str) -> Problem {
        self.meters.throttled(act, by);
        // Never too early, and not at the same time for all who were refused together.
        let wait = wait.max(LEAST_RETRY).mul_f64(rand::random_range(1.0..=1.5));
        Problem::new(Reason::Throttled, detail).meta("act", act.name()).meta("by", by.name()).retry_after(wait)
    }
}

/// Returns the limits of an act, the narrowest first: whoever is over their own takes nothing from that of all others
/// at their address.
fn bounds<'a>(act: Act, who: &'a Who<'_>) -> impl Iterator<Item = (By, Rate, &'a dyn Display)> {
    let rule = act.rule();
    By::NARROWEST_FIRST.into_iter().filter_map(move |by| Some((by, rule.of(by)?, who.subject(by)?)))
}
