//! The gate scripts: refresh tokens and their rotation.
//!
//! A family is one login. Its name is part of every token of it, so that one key holds all there is to know and a login
//! costs one small hash however often it is refreshed. Tokens come here as SHA-256 hashes, never as themselves.

use crate::{Args, FromRedisValue, Redis, RedisError, script::script};
use stampede_vocab::Timestamp;
use std::time::Duration;

/// Whom a family is issued to; part of what this door takes and gives.
pub use stampede_vocab::UserId;

script!(ISSUE, "gate/issue");
script!(ROTATE, "gate/rotate");

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
    /// No such family: it was never issued, or its time is up.
    Unknown,
}

/// Opens `family` for `user` with the hash of its first token. Returns when, by the clock of Redis.
pub async fn issue(
    redis: &Redis,
    family: &str,
    user: UserId,
    role: &str,
    token_hash: &str,
    life: Duration,
) -> Result<Timestamp, RedisError> {
    let keys = [redis.keys().gate_family(family)];
    let args = Args::new().with(user.to_string()).with(role).with(token_hash).with(millis(life));
    let reply = redis.invoke(&ISSUE, &keys, &args).await?;
    let now_us = i64::from_redis_value(reply).map_err(|error| RedisError::reply(ISSUE.name(), error))?;
    Ok(Timestamp::from_micros(now_us))
}

/// Puts the token of `next_hash` in the place of the one presented, if that is the valid one of `family`.
pub async fn rotate(
    redis: &Redis,
    family: &str,
    presented_hash: &str,
    next_hash: &str,
    life: Duration,
) -> Result<Rotation, RedisError> {
    let keys = [redis.keys().gate_family(family)];
    let args = Args::new().with(presented_hash).with(next_hash).with(millis(life));
    let reply = redis.invoke(&ROTATE, &keys, &args).await?;
    let words = Vec::<String>::from_redis_value(reply).map_err(|error| RedisError::reply(ROTATE.name(), error))?;
    read_rotation(&words).ok_or_else(|| RedisError::reply(ROTATE.name(), words))
}

fn read_rotation(words: &[String]) -> Option<Rotation> {
    match words {
        [word] if word == "reused" => Some(Rotation::Reused),
        [word] if word == "unknown" => Some(Rotation::Unknown),
        [word, user, role, now_us] if word == "rotated" => Some(Rotation::Rotated {
            user: user.parse().ok()?,
            role: role.clone(),
            at: Timestamp::from_micros(now_us.parse().ok()?),
        }),
        _ => None,
    }
}

/// A life of at least one millisecond: zero would delete the key at once.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
