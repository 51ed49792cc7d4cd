//! Limits on what callers do: how often by user and by address, and how many orders they may have open.
//!
//! What was done is counted in Redis, so the limits hold for all gateways together. Where Redis does not answer at
//! once, acts are let through and counted as such: a limit protects a sale, and must not stop one.
//!
//! Who a caller is was checked before, and what a request says was read. So a refusal names no secret, and a request
//! that makes no sense costs its caller nothing.

mod meters;
mod rules;
mod tab;

pub use self::rules::Act;

use self::{
    meters::{By, Meters},
    rules::{OPEN_BY_ADDRESS, OPEN_BY_TOKEN, Rate},
};
use stampede_chassis::Block;
use stampede_lua::{
    Redis, RedisError,
    gate::{self, Admission, Bucket, OpenOrders},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::OrderId;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Longest wait for Redis, a connection to it included. It answers within a millisecond, or something is wrong.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long Redis is not asked after it did not answer, so that not every request waits for it.
const REST: Duration = Duration::from_secs(1);
/// Shortest wait that a caller is told.
const LEAST_RETRY: Duration = Duration::from_secs(1);

/// Lets acts through, or refuses them.
pub struct Acts {
    redis: Redis,
    factor: u32,
    rests_until: Mutex<Option<Instant>>,
    meters: Meters,
}

/// Who does something: what the limits know of them.
#[derive(Debug, Clone, Default)]
pub struct Who {
    /// The user, or the login where no user is known.
    pub token: Option<String>,
    /// The address that the request is from.
    pub block: Option<Block>,
    /// The order that is acted on.
    pub order: Option<OrderId>,
    /// The order that is placed.
    pub placing: Option<OrderId>,
}

impl Acts {
    /// Counts in `redis`. Every limit is `factor` times what the rules say; 0 for no limits.
    pub fn new(redis: Redis, factor: u32) -> Self {
        Self { redis, factor, rests_until: Mutex::new(None), meters: Meters::new() }
    }

    /// Counts one act; `THROTTLED` if there were too many.
    pub async fn admit(&self, act: Act, who: &Who) -> Result<(), Problem> {
        if self.factor == 0 {
            return Ok(());
        }
        let rule = act.rule();
        // The narrowest first, and one after the other: whoever is over their own limit takes nothing from that of all
        // others at their address.
        if let (Some(order), Some(rate)) = (who.order, rule.by_order) {
            self.check(act, By::Order, &order.to_string(), rate, None).await?;
        }
        if let (Some(token), Some(rate)) = (&who.token, rule.by_token) {
            self.check(act, By::Token, token, rate, self.open_orders(OPEN_BY_TOKEN, who)).await?;
        }
        if let (Some(block), Some(rate)) = (who.block, rule.by_address) {
            self.check(act, By::Address, &block.to_string(), rate, self.open_orders(OPEN_BY_ADDRESS, who)).await?;
        }
        Ok(())
    }

    fn open_orders(&self, most: u32, who: &Who) -> Option<OpenOrders> {
        who.placing.map(|order| OpenOrders { most: u64::from(most) * u64::from(self.factor), order })
    }

    async fn check(
        &self,
        act: Act,
        by: By,
        subject: &str,
        rate: Rate,
        open: Option<OpenOrders>,
    ) -> Result<(), Problem> {
        let burst = u64::from(rate.burst) * u64::from(self.factor);
        let bucket = Bucket { subject, act: act.name(), burst, interval: rate.interval / self.factor };
        match self.ask(gate::admit(&self.redis, bucket, open)).await {
            None | Some(Admission::Admitted) => Ok(()),
            Some(Admission::Throttled(wait)) => Err(self.refuse(act, by, wait, "there were too many of these")),
            Some(Admission::Open(wait)) => {
                Err(self.refuse(act, by, wait, "too many orders are open: pay or cancel one of them"))
            }
        }
    }

    /// Asks Redis, unless it did not answer a moment ago. `None` if it does not say.
    async fn ask<T>(&self, asking: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        if self.rests() {
            self.meters.unasked();
            return None;
        }
        let error = match timeout(LONGEST_WAIT, asking).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LONGEST_WAIT:?}"),
        };
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        self.meters.unasked();
        tracing::warn!(error.cause = error, "limits cannot be asked for; callers are let through");
        None
    }

    fn rests(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn refuse(&self, act: Act, by: By, wait: Duration, detail: &str) -> Problem {
        self.meters.throttled(act, by);
        // Never before it is of use, and not all who were refused together at the same time.
        let wait = wait.max(LEAST_RETRY).mul_f64(rand::random_range(1.0..=1.5));
        Problem::new(Reason::Throttled, detail).meta("act", act.name()).meta("by", by.name()).retry_after(wait)
    }
}
