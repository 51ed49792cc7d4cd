//! Limits on what callers do: how often by user and by address, and how many orders they may have open.
//!
//! Acts are counted in Redis, so the limits hold for all gateways together. They fail open: where Redis does not answer
//! at once, acts are admitted, and counted as such. A limit protects a sale, and must not stop one.
//!
//! The caller is authenticated and the request is parsed before. So a refusal reveals no secret, and an invalid request
//! is not counted.

mod meters;
mod order_tracker;
mod queue;
mod rules;

pub use self::rules::Act;

use self::{
    meters::{By, Meters},
    queue::Queue,
    rules::{Rate, SETTLED_FOR},
};
use stampede_chassis::{Block, Offenders};
use stampede_lua::{
    Redis,
    gate::{Admission, Bucket, OpenOrders, Question},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::OrderId;
use std::{fmt, sync::Arc, time::Duration};

/// Shortest retry delay of a refusal.
const LEAST_RETRY: Duration = Duration::from_secs(1);

/// Admits or refuses acts.
pub struct Acts {
    redis: Redis,
    queue: Queue,
    factor: u32,
    meters: Arc<Meters>,
    offenders: Offenders,
    /// Time for which a settled order is remembered.
    settled_for: Duration,
}

/// The caller of an act, with the keys by which the limits count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Actor<'a> {
    /// The user, or the login where no user is known.
    pub token: Option<&'a str>,
    /// The address that the request is from.
    pub block: Option<Block>,
    /// The order that is paid or cancelled.
    pub order: Option<OrderId>,
    /// The order that is placed.
    pub placing: Option<OrderId>,
}

impl<'a> Actor<'a> {
    /// Returns the key of the limits of this kind; `None` if it is unknown.
    fn subject(&self, by: By) -> Option<Subject<'a>> {
        Some(match by {
            By::Order => Subject::Order(self.token?, self.order?),
            By::Token => Subject::Token(self.token?),
            By::Address => Subject::Address(self.block?),
        })
    }
}

/// The key of the limits of one kind.
#[derive(Debug, Clone, Copy)]
enum Subject<'a> {
    /// An order, for its caller: whether the order is theirs is not known yet, and a stranger must not use up the acts
    /// of its buyer.
    Order(&'a str, OrderId),
    Token(&'a str),
    Address(Block),
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(token, order) => write!(f, "{token}/{order}"),
            Self::Token(token) => f.write_str(token),
            Self::Address(block) => write!(f, "{block}"),
        }
    }
}

impl Acts {
    /// Counts in `redis`, from the current runtime, and admits an act if Redis does not answer within `longest_wait`.
    /// Every limit is `factor` times the rule; 0 disables them. No call takes longer than `call_timeout`.
    pub fn new(redis: Redis, factor: u32, longest_wait: Duration, call_timeout: Duration) -> Self {
        let settled_for = SETTLED_FOR.max(2 * call_timeout);
        let meters = Arc::new(Meters::new());
        let queue = Queue::new(redis.clone(), Arc::clone(&meters), longest_wait);
        Self { queue, redis, factor, meters, offenders: Offenders::default(), settled_for }
    }

    /// Counts one act. Fails with `THROTTLED` over a limit.
    pub async fn admit(&self, act: Act, actor: &Actor<'_>) -> Result<(), Problem> {
        if self.factor == 0 {
            return Ok(());
        }
        let buckets: Vec<_> =
            bounds(act, actor).map(|(by, rate, subject)| self.bucket(act, by, rate, subject, actor.placing)).collect();
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
        let by = bounds(act, actor).nth(bucket).map_or(By::Address, |(by, ..)| by);
        if let Some(block) = actor.block.filter(|_| by == By::Address) {
            self.offenders.refused(block, act.name());
        }
        Err(self.refuse(act, by, wait, detail))
    }

    fn bucket(&self, act: Act, by: By, rate: Rate, subject: Subject<'_>, placing: Option<OrderId>) -> Bucket {
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
        // Never too early, and with jitter, since many may be refused together.
        let wait = wait.max(LEAST_RETRY).mul_f64(rand::random_range(1.0..=1.5));
        Problem::new(Reason::Throttled, detail).meta("act", act.name()).meta("by", by.name()).retry_after(wait)
    }
}

/// Returns the limits of an act, the narrowest first: a caller over their own limit does not use up that of their
/// address.
fn bounds<'a>(act: Act, actor: &Actor<'a>) -> impl Iterator<Item = (By, Rate, Subject<'a>)> {
    let rule = act.rule();
    By::NARROWEST_FIRST.into_iter().filter_map(move |by| Some((by, rule.of(by)?, actor.subject(by)?)))
}
