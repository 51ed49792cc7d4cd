//! The gate scripts: refresh tokens and their rotation.
//!
//! A family is one login. Its name is part of every token of it, so that one key holds all there is to know and a login
//! costs one small hash however often it is refreshed, and nothing until it is: what a first token says is signed by who
//! issues it, and only its use is written down. Later tokens come here as SHA-256 hashes, never as themselves.

use crate::{Args, FromRedisValue, Redis, RedisError, Script, script::script};
use std::time::Duration;

/// Whom a family is issued to, and when: part of what this door takes and gives.
pub use stampede_vocab::{Timestamp, UserId};

script!(EPOCH, "gate/epoch");
script!(OPEN, "gate/open");
script!(ROTATE, "gate/rotate");

/// The time in which first tokens are good, as long as Redis has not forgotten which of them were used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its name.
    pub name: String,
    /// When it was asked for, by the clock of Redis.
    pub now: Timestamp,
}

/// The first token of a family, as its signature vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstToken {
    /// The family that it opens.
    pub family: String,
    /// Whom it was issued to.
    pub user: UserId,
    /// Role that it was issued with.
    pub role: String,
    /// Name of the epoch in which it was issued.
    pub epoch: String,
    /// End of its time.
    pub expires_at: Timestamp,
}

/// What became of a refresh token that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was the valid one; the next one has taken its place.
    Rotated {
        /// Whom the family was issued to.
        user: UserId,
        /// Role that it was issued with.
        role: String,
        /// When, by the clock of Redis.
        at: Timestamp,
    },
    /// It was used before. The whole family is shut from now on.
    Reused,
    /// No such token: it was never issued, or its time or its epoch is over.
    Unknown,
}

/// The epoch of Redis; a new one is called `fresh`, which is to be drawn at random.
pub async fn epoch(redis: &Redis, fresh: &str) -> Result<Epoch, RedisError> {
    let keys = [redis.keys().gate_epoch()];
    let reply = redis.invoke(&EPOCH, &keys, &Args::new().with(fresh)).await?;
    let (name, now_us) =
        <(String, i64)>::from_redis_value(reply).map_err(|error| RedisError::reply(EPOCH.name(), error))?;
    Ok(Epoch { name, now: Timestamp::from_micros(now_us) })
}

/// Exchanges a first token, which must be of this `epoch`, for the token of `next_hash`, which must be drawn for this
/// call: a call with the same one is a repeat and gets the same answer.
pub async fn open(
    redis: &Redis,
    first: &FirstToken,
    epoch: &Epoch,
    next_hash: &str,
    life: Duration,
) -> Result<Rotation, RedisError> {
    if first.epoch != epoch.name {
        return Ok(Rotation::Unknown);
    }
    let keys = [redis.keys().gate_family(&first.family)];
    let until_ms = first.expires_at.micros() / 1_000;
    let args =
        Args::new().with(first.user.to_string()).with(&first.role).with(next_hash).with(millis(life)).with(until_ms);
    exchange(redis, &OPEN, &keys, &args).await
}

/// Puts the token of `next_hash` in the place of the one presented, if that is the valid one of `family`. It must be
/// drawn for this call: a call with the same one is a repeat and gets the same answer.
pub async fn rotate(
    redis: &Redis,
    family: &str,
    presented_hash: &str,
    next_hash: &str,
    life: Duration,
) -> Result<Rotation, RedisError> {
    let keys = [redis.keys().gate_family(family)];
    let args = Args::new().with(presented_hash).with(next_hash).with(millis(life));
    exchange(redis, &ROTATE, &keys, &args).await
}

async fn exchange(redis: &Redis, script: &Script, keys: &[String], args: &Args) -> Result<Rotation, RedisError> {
    let reply = redis.invoke(script, keys, args).await?;
    let words = Vec::<String>::from_redis_value(reply).map_err(|error| RedisError::reply(script.name(), error))?;
    read_rotation(&words).ok_or_else(|| RedisError::reply(script.name(), words))
}

fn read_rotation(words: &[String]) -> Option<Rotation> {
    match words {
        [word] if word == "reused" => Some(Rotation::Reused),
        [word] if word == "unknown" => Some(Rotation::Unknown),
        [word, user, role, rotated_us] if word == "rotated" => Some(Rotation::Rotated {
            user: user.parse().ok()?,
            role: role.clone(),
            at: Timestamp::from_micros(rotated_us.parse().ok()?),
        }),
        _ => None,
    }
}

/// A life of at least one millisecond: zero would delete the key at once.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
