//! Rate limits: acts of a caller per time, and orders that are open at once.
//!
//! Questions are batched into one call of the script, which answers one after the other. In a cluster each subject (a
//! user, a login, an order of a user, a network) has a hash slot of its own, so one call is made for each subject, in
//! rounds: an act is counted for an address only if the user may do it.

use super::{LIMIT, millis};
use crate::{Args, FromRedisValue, Keys, Redis, RedisError, Value};
use futures_util::future::join_all;
use stampede_vocab::OrderId;
use std::{
    collections::HashMap,
    fmt::Display,
    time::{Duration, Instant},
};

/// Most questions of one call of [`ask_limits`]: while Redis answers them it serves no other client.
pub const MAX_QUESTIONS: usize = 128;

/// The rate limit of one act for one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    key: String,
    burst: u64,
    interval: Duration,
    bound: Option<OpenBound>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenBound {
    orders: OpenOrders,
    most: u64,
    order: OrderId,
}

/// The open orders of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOrders(String);

/// One question, or one change of the open orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether an act may be done. If so, it counts in each of its buckets; the narrowest comes first, and who is
    /// refused by one takes nothing from those behind it.
    Act(Vec<Bucket>),
    /// An order counts as open for so long, unless it is settled before. Again for the same order changes nothing; nor
    /// does it for one that was settled and is remembered.
    Placed {
        /// The order.
        order: OrderId,
        /// Whose it is.
        of: Vec<OpenOrders>,
        /// How long it counts.
        life: Duration,
    },
    /// An order counts as open no longer.
    Settled {
        /// The order.
        order: OrderId,
        /// Whose it is.
        of: Vec<OpenOrders>,
        /// How long it is remembered: a record of it as placed that comes late is ignored.
        life: Duration,
    },
}

/// Whether an act may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may. Also the answer to a change of the open orders.
    Admitted,
    /// Too many were done.
    Throttled {
        /// Index of the bucket that has no room, from 0.
        bucket: usize,
        /// One more is allowed after this time.
        wait: Duration,
    },
    /// Too many orders are open.
    Open {
        /// Index of the bucket whose bound is reached, from 0.
        bucket: usize,
        /// The next one stops to count after this time.
        wait: Duration,
    },
}

impl Bucket {
    /// The bucket of `subject`, whose text has no braces: so many acts at once, and one more after each interval.
    pub fn new(keys: &Keys, subject: impl Display, act: &str, burst: u64, interval: Duration) -> Self {
        Self { key: keys.gate_bucket(subject, act), burst, interval, bound: None }
    }

    /// The bucket for an act that places `order`, while fewer than `most` are open of the same subject. One that is
    /// open is let through: it is a repeat.
    #[must_use]
    pub fn bounding(self, orders: OpenOrders, most: u64, order: OrderId) -> Self {
        Self { bound: Some(OpenBound { orders, most, order }), ..self }
    }
}

impl OpenOrders {
    /// The open orders of `subject`, whose text has no braces.
    pub fn of(keys: &Keys, subject: impl Display) -> Self {
        Self(keys.gate_open_orders(subject))
    }
}

/// Asks questions, at most [`MAX_QUESTIONS`], in their order. Returns one answer for each, within the time of one call.
/// In a cluster, where some may fail and others not, open orders are written before any act is decided.
pub async fn ask_limits(redis: &Redis, questions: Vec<Question>) -> Vec<Result<Admission, RedisError>> {
    if redis.is_cluster() {
        return ask_in_rounds(redis, &questions).await;
    }
    let mut call = Call::default();
    for question in questions {
        call.put(question);
    }
    let count = call.questions;
    match call.run(redis).await {
        Ok(admissions) => admissions.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); count],
    }
}

/// One call of the script, built up question by question.
#[derive(Default)]
struct Call {
    keys: Vec<String>,
    args: Args,
    questions: usize,
}

impl Call {
    fn put(&mut self, question: Question) {
        self.questions += 1;
        match question {
            Question::Act(buckets) => {
                self.args.push("act");
                self.args.push(buckets.len());
                for bucket in buckets {
                    self.put_bucket(bucket);
                }
            }
            Question::Placed { order, of, life } => {
                self.args.push("placed");
                self.args.push_text(order);
                self.args.push(millis(life));
                self.put_sets(of);
            }
            Question::Settled { order, of, life } => {
                self.args.push("settled");
                self.args.push_text(order);
                self.args.push(millis(life));
                self.put_sets(of);
            }
        }
    }

    fn put_bucket(&mut self, bucket: Bucket) {
        self.keys.push(bucket.key);
        self.args.push(micros(bucket.interval));
        self.args.push(bucket.burst);
        match bucket.bound {
            Some(OpenBound { orders, most, order }) => {
                self.keys.push(orders.0);
                self.args.push(most);
                self.args.push_text(order);
            }
            None => self.args.push(""),
        }
    }

    fn put_sets(&mut self, of: Vec<OpenOrders>) {
        self.args.push(of.len());
        self.keys.extend(of.into_iter().map(|orders| orders.0));
    }

    async fn run(self, redis: &Redis) -> Result<Vec<Admission>, RedisError> {
        let reply = redis.invoke(&LIMIT, &self.keys, &self.args).await?;
        let mut values = parse::<Vec<Value>>(reply)?.into_iter();
        let answered: usize = parse(values.next().unwrap_or(Value::Nil))?;
        if answered != self.questions {
            return Err(misfit("another number of answers than questions"));
        }
        let mut admissions = vec![Admission::Admitted; answered];
        for value in values {
            let (question, refusal) = read_refusal(value)?;
            *admissions.get_mut(question).ok_or_else(|| misfit("a refusal of nothing"))? = refusal;
        }
        Ok(admissions)
    }
}

/// Parses a refusal: the index of its question, from 0, and the reason.
fn read_refusal(value: Value) -> Result<(usize, Admission), RedisError> {
    let (question, bucket, word, wait_us): (usize, usize, String, u64) = parse(value)?;
    let (Some(question), Some(bucket)) = (question.checked_sub(1), bucket.checked_sub(1)) else {
        return Err(misfit("a refusal without a place"));
    };
    let wait = Duration::from_micros(wait_us);
    match word.as_str() {
        "throttled" => Ok((question, Admission::Throttled { bucket, wait })),
        "open" => Ok((question, Admission::Open { bucket, wait })),
        _ => Err(misfit(word)),
    }
}

/// Asks a cluster: writes first, then the first bucket of each act, then the second of those admitted so far. Each
/// round makes one call for each key, all at once. The rounds share the time of one call: what has no answer by then
/// fails, and a refusal of a round before stays.
async fn ask_in_rounds(redis: &Redis, questions: &[Question]) -> Vec<Result<Admission, RedisError>> {
    let deadline = Instant::now() + redis.timeout();
    let mut answers = vec![Ok(Admission::Admitted); questions.len()];
    let rounds = 1 + questions.iter().map(Question::buckets).max().unwrap_or(0);
    for round in 0..rounds {
        let redis = &redis.with_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut groups = HashMap::<&str, Group>::new();
        for (place, question) in questions.iter().enumerate() {
            if matches!(answers[place], Ok(Admission::Admitted)) {
                for (key, part) in question.parts(round) {
                    let group = groups.entry(key).or_default();
                    group.call.put(part);
                    group.places.push(place);
                }
            }
        }
        let calls = groups.into_values().map(|group| async move { (group.places, group.call.run(redis).await) });
        for (places, admissions) in join_all(calls).await {
            write_answers(&mut answers, &places, admissions, round);
        }
    }
    answers
}

/// The call that one round makes for one key, with the index of the question that each part belongs to.
#[derive(Default)]
struct Group {
    call: Call,
    places: Vec<usize>,
}

impl Question {
    fn buckets(&self) -> usize {
        match self {
            Self::Act(buckets) => buckets.len(),
            Self::Placed { .. } | Self::Settled { .. } => 0,
        }
    }

    /// The parts of the question that belong to this round, each about one subject, by a key of that subject.
    fn parts(&self, round: usize) -> Vec<(&str, Self)> {
        match self {
            Self::Act(buckets) => {
                let bucket = round.checked_sub(1).and_then(|place| buckets.get(place));
                bucket.map(|bucket| (bucket.key.as_str(), Self::Act(vec![bucket.clone()]))).into_iter().collect()
            }
            Self::Placed { order, of, life } if round == 0 => {
                let part = |one: &OpenOrders| Self::Placed { order: *order, of: vec![one.clone()], life: *life };
                of.iter().map(|one| (one.0.as_str(), part(one))).collect()
            }
            Self::Settled { order, of, life } if round == 0 => {
                let part = |one: &OpenOrders| Self::Settled { order: *order, of: vec![one.clone()], life: *life };
                of.iter().map(|one| (one.0.as_str(), part(one))).collect()
            }
            Self::Placed { .. } | Self::Settled { .. } => Vec::new(),
        }
    }
}

/// Writes the refusals and errors of a round into the answers; the others stay as they are.
fn write_answers(
    answers: &mut [Result<Admission, RedisError>],
    places: &[usize],
    admissions: Result<Vec<Admission>, RedisError>,
    round: usize,
) {
    // Each act was checked against one bucket, that of the round; the first round only writes, so it refuses nothing.
    let bucket = round.saturating_sub(1);
    match admissions {
        Ok(admissions) => {
            for (place, admission) in places.iter().zip(admissions) {
                match admission {
                    Admission::Admitted => {}
                    Admission::Throttled { wait, .. } => answers[*place] = Ok(Admission::Throttled { bucket, wait }),
                    Admission::Open { wait, .. } => answers[*place] = Ok(Admission::Open { bucket, wait }),
                }
            }
        }
        Err(error) => {
            for place in places {
                answers[*place] = Err(error.clone());
            }
        }
    }
}

/// An interval of at least one microsecond, which is as good as no limit.
fn micros(interval: Duration) -> u64 {
    u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1)
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, RedisError> {
    T::from_redis_value(value).map_err(misfit)
}

fn misfit(what: impl std::fmt::Debug) -> RedisError {
    RedisError::reply(LIMIT.name(), what)
}
