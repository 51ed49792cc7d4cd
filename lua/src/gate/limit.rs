//! How much a caller may do: acts in their time, and orders that are open at once.
//!
//! Each key is of one subject (a user, a login, an order, a network), so a script has one hash slot. Whoever asks for
//! two subjects asks twice.

use super::{ADMIT, PLACED, SETTLED, millis};
use crate::{Args, FromRedisValue, Redis, RedisError};
use stampede_vocab::OrderId;
use std::time::Duration;

/// How much of one act one subject may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// Whose it is; a text without braces.
    pub subject: &'a str,
    /// The act.
    pub act: &'a str,
    /// Acts at once.
    pub burst: u64,
    /// Time after which one more is allowed.
    pub interval: Duration,
}

/// The bound on the subject's orders that nobody has paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOrders {
    /// Most of them.
    pub most: u64,
    /// The order that is about to be placed. It is let through if it is one of them.
    pub order: OrderId,
}

/// Whether an act may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admitted,
    /// Too many were done; one more is allowed after this time.
    Throttled(Duration),
    /// Too many orders are open; the next one stops to count after this time.
    Open(Duration),
}

/// Counts one act of the bucket, if that has room for it and `open` is not reached.
pub async fn admit(redis: &Redis, bucket: Bucket<'_>, open: Option<OpenOrders>) -> Result<Admission, RedisError> {
    let mut keys = vec![redis.keys().gate_bucket(bucket.subject, bucket.act)];
    let mut args = Args::new().with(micros(bucket.interval)).with(bucket.burst);
    if let Some(open) = open {
        keys.push(redis.keys().gate_open_orders(bucket.subject));
        args = args.with(open.most).with(open.order.to_string());
    }
    let reply = redis.invoke(&ADMIT, &keys, &args).await?;
    let (word, wait_us) =
        <(String, u64)>::from_redis_value(reply).map_err(|error| RedisError::reply(ADMIT.name(), error))?;
    match word.as_str() {
        "admitted" => Ok(Admission::Admitted),
        "throttled" => Ok(Admission::Throttled(Duration::from_micros(wait_us))),
        "open" => Ok(Admission::Open(Duration::from_micros(wait_us))),
        _ => Err(RedisError::reply(ADMIT.name(), word)),
    }
}

/// Counts an order as open for so long, unless it is settled before. Again for the same order changes nothing.
pub async fn placed(redis: &Redis, subject: &str, order: OrderId, life: Duration) -> Result<(), RedisError> {
    let args = Args::new().with(order.to_string()).with(millis(life));
    redis.invoke(&PLACED, &[redis.keys().gate_open_orders(subject)], &args).await.map(drop)
}

/// Counts an order as open no longer.
pub async fn settled(redis: &Redis, subject: &str, order: OrderId) -> Result<(), RedisError> {
    let args = Args::new().with(order.to_string());
    redis.invoke(&SETTLED, &[redis.keys().gate_open_orders(subject)], &args).await.map(drop)
}

/// An interval of at least one microsecond, which is as good as no limit.
fn micros(interval: Duration) -> u64 {
    u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1)
}
