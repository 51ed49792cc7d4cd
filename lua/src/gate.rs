//! The gate scripts: refresh tokens and their rotation, what is revoked, and rate limits.
//!
//! A family is one login. Its name is part of every token of it, so one key has its whole state, and a login costs one
//! small hash however often it is refreshed. It costs nothing before its first refresh: a first token is signed by its
//! issuer, and only its use is stored. Later tokens come here as SHA-256 hashes, never as themselves.

mod limit;
mod revoked;

pub use self::{
    limit::{Admission, Bucket, MAX_QUESTIONS, OpenOrders, Question, ask_limits},
    revoked::{Revocation, revoke, revoked_since},
};

use crate::{Args, FromRedisValue, Redis, RedisError, Script, script::script};
use std::time::Duration;

/// Types of this module's arguments and results: the owner of a family, and times.
pub use stampede_vocab::{Timestamp, UserId};

script!(EPOCH, "gate/epoch");
script!(OPEN, "gate/open");
script!(ROTATE, "gate/rotate");
script!(END, "gate/end");
script!(REVOKE, "gate/revoke");
script!(REVOKED, "gate/revoked");
script!(LIMIT, "gate/limit");

/// The time in which first tokens are good, as long as Redis has not forgotten which of them were used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its name.
    pub name: String,
    /// When it was read, by the clock of Redis.
    pub now: Timestamp,
}

/// The first token of a family, with the contents that its signature covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstToken {
    /// The family that it opens.
    pub family: String,
    /// The user that it was issued to.
    pub user: UserId,
    /// Role that it was issued with.
    pub role: String,
    /// Name of the epoch in which it was issued.
    pub epoch: String,
    /// End of its time.
    pub expires_at: Timestamp,
}

/// The successor of a token that is presented.
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    /// SHA-256 of the next token in hex, by each key that it may be made with. It must follow from the token presented.
    /// The first is used for a new token; the others recognise one that was made before.
    pub hashes: &'a [String],
    /// How long it is good.
    pub life: Duration,
    /// How long a repeat of the token presented is answered with it again.
    pub repeat: Duration,
}

/// The outcome for a refresh token that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was the valid one, or the one before it, presented again; the next one has taken its place.
    Rotated {
        /// The user that the family was issued to.
        user: UserId,
        /// Role that it was issued with.
        role: String,
        /// When, by the clock of Redis.
        at: Timestamp,
        /// Index of the valid token's hash among those given.
        next: usize,
    },
    /// It was used before. The whole family is shut from now on.
    Reused,
    /// Its owner has ended the family.
    Ended,
    /// No such token: it was never issued, or its time or its epoch is over.
    Unknown,
}

/// Returns the epoch of Redis; a new one is called `fresh`, which is to be drawn at random.
pub async fn epoch(redis: &Redis, fresh: &str) -> Result<Epoch, RedisError> {
    let keys = [redis.keys().gate_epoch()];
    let reply = redis.invoke(&EPOCH, &keys, &Args::new().with(fresh)).await?;
    let (name, now_us) =
        <(String, i64)>::from_redis_value(reply).map_err(|error| RedisError::reply(EPOCH.name(), error))?;
    Ok(Epoch { name, now: Timestamp::from_micros(now_us) })
}

/// Exchanges a first token, which must be of this `epoch`, for the next one. The same token again gets the same answer
/// for a while.
pub async fn open(redis: &Redis, first: &FirstToken, epoch: &Epoch, next: Next<'_>) -> Result<Rotation, RedisError> {
    if first.epoch != epoch.name {
        return Ok(Rotation::Unknown);
    }
    let keys = [redis.keys().gate_family(&first.family)];
    let until_ms = first.expires_at.micros() / 1_000;
    let args = Args::new().with(first.user.to_string()).with(&first.role).with(millis(next.life)).with(until_ms);
    exchange(redis, &OPEN, &keys, args, next).await
}

/// Replaces the token presented by the next one, if it is the valid one of `family`. The same token again gets the same
/// answer for a while.
pub async fn rotate(redis: &Redis, family: &str, presented_hash: &str, next: Next<'_>) -> Result<Rotation, RedisError> {
    let keys = [redis.keys().gate_family(family)];
    let args = Args::new().with(presented_hash).with(millis(next.life));
    exchange(redis, &ROTATE, &keys, args, next).await
}

/// Ends a family for its owner, who presents the valid token, or has shown by a signature that the family is theirs
/// (`None`). Returns whether the token is valid. A family that was never opened is remembered as ended for `life`, that
/// of its first token.
pub async fn end(
    redis: &Redis,
    family: &str,
    presented_hash: Option<&str>,
    life: Duration,
) -> Result<bool, RedisError> {
    let keys = [redis.keys().gate_family(family)];
    let args = Args::new().with(presented_hash.unwrap_or_default()).with(millis(life));
    let reply = redis.invoke(&END, &keys, &args).await?;
    bool::from_redis_value(reply).map_err(|error| RedisError::reply(END.name(), error))
}

async fn exchange(
    redis: &Redis,
    script: &Script,
    keys: &[String],
    args: Args,
    next: Next<'_>,
) -> Result<Rotation, RedisError> {
    let args = next.hashes.iter().fold(args.with(millis(next.repeat)), |args, hash| args.with(hash));
    let reply = redis.invoke(script, keys, &args).await?;
    let words = Vec::<String>::from_redis_value(reply).map_err(|error| RedisError::reply(script.name(), error))?;
    read_rotation(&words).ok_or_else(|| RedisError::reply(script.name(), words))
}

fn read_rotation(words: &[String]) -> Option<Rotation> {
    match words {
        [word] if word == "reused" => Some(Rotation::Reused),
        [word] if word == "ended" => Some(Rotation::Ended),
        [word] if word == "unknown" => Some(Rotation::Unknown),
        [word, user, role, rotated_us, which] if word == "rotated" => Some(Rotation::Rotated {
            user: user.parse().ok()?,
            role: role.clone(),
            at: Timestamp::from_micros(rotated_us.parse().ok()?),
            next: which.parse::<usize>().ok()?.checked_sub(1)?,
        }),
        _ => None,
    }
}

/// A life of at least one millisecond: zero would delete the key at once.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
