//! The coupon scripts: ranking the claims of a campaign, and staging it.
//!
//! Ranked means issued. A claim that was ranked stays pending until [`acknowledge`] confirms that its row is stored.

use crate::{Args, FromRedisValue, Redis, RedisError, Script, Value, script::script};
use stampede_vocab::{CampaignId, RequestId, Timestamp, UserId};
use std::time::Duration;

script!(CLAIM, "coupon/claim", with_run_id);
script!(ACKNOWLEDGE, "coupon/acknowledge");
script!(STAGE, "coupon/stage", with_run_id);
script!(LOAD, "coupon/load", with_run_id);
script!(PENDING, "coupon/pending");
script!(SNAPSHOT, "coupon/snapshot", with_run_id);

/// Most claims of one call of [`claim`] or [`acknowledge`].
pub const MAX_CLAIMS: usize = 256;
/// Most coupons of one call of [`load`].
pub const MAX_PAGE: usize = 1_000;

/// A claim that was given its rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// Who claimed.
    pub user: UserId,
    /// Request that was ranked.
    pub request_id: RequestId,
    /// Order of arrival: 1 came first.
    pub rank: i32,
    /// When it was ranked, by the clock of Redis.
    pub claimed_at: Timestamp,
    /// Epoch of the campaign then.
    pub epoch: i64,
}

/// Outcome of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was ranked just now.
    Ranked(Ranked),
    /// This user's claim was ranked before, and its row is not known to be stored.
    Pending(Ranked),
    /// This user's claim was ranked before, and its row was stored. Carries the rank of then with the request and the
    /// time of now, to be stored if the row is missing after all.
    Stored(Ranked),
    /// Claims have not opened.
    NotOpen,
    /// Claims have closed.
    Closed,
    /// Every rank is given.
    SoldOut,
    /// The campaign is missing, still being staged, or was staged before the server began to run.
    NotReady,
}

/// The terms that a campaign is staged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Ranks there are.
    pub quota: i32,
    /// When claims open.
    pub open_time: Timestamp,
    /// When claims close.
    pub close_time: Timestamp,
    /// When Redis may forget the campaign, but for claims that are not known to be stored.
    pub expires_at: Timestamp,
}

/// Whether a campaign is to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staging {
    /// Claims are being ranked.
    Ready,
    /// Its coupons are to be loaded under this epoch.
    Loading {
        /// The epoch.
        epoch: i64,
    },
}

/// Outcome of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// It is loaded, and more is to come.
    Page,
    /// It was the last: claims are being ranked.
    Ready,
    /// Somebody staged the campaign anew, or it is gone: nothing was loaded.
    Superseded,
}

/// One page of claims that are not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPage {
    /// Claims of at least the given age.
    pub claims: Vec<Ranked>,
    /// Cursor of the next page; `None` on the last.
    pub next: Option<u64>,
}

/// Progress of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether claims are being ranked.
    pub ready: bool,
    /// Epoch it was staged under.
    pub epoch: i64,
    /// Ranks there are.
    pub quota: i32,
    /// Ranks given so far.
    pub issued: i32,
    /// Claims that are not known to be stored.
    pub pending: i32,
}

/// Ranks claims of one campaign in the order given; one outcome each. At most [`MAX_CLAIMS`].
pub async fn claim(
    redis: &Redis,
    campaign: CampaignId,
    claims: &[(UserId, RequestId)],
) -> Result<Vec<Outcome>, RedisError> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let mut args = Args::new();
    for (user, request_id) in claims {
        args.push(user.to_string());
        args.push(request_id.as_str());
    }
    let reply: Vec<Value> = parse(&CLAIM, redis.invoke(&CLAIM, &both_keys(redis, campaign), &args).await?)?;
    let mut values = reply.into_iter();
    let (Some(now), Some(epoch)) = (values.next(), values.next()) else { return Err(misfit(&CLAIM, "too short")) };
    let now = Timestamp::from_micros(parse(&CLAIM, now)?);
    let epoch = parse(&CLAIM, epoch)?;
    if values.len() != claims.len() {
        return Err(misfit(&CLAIM, "another number of outcomes than claims"));
    }
    values.zip(claims).map(|(value, claim)| outcome(value, claim, now, epoch)).collect()
}

/// Removes claims from the pending ones: they are stored, or never will be. At most [`MAX_CLAIMS`]. Returns how many of
/// them were still pending.
pub async fn acknowledge(redis: &Redis, campaign: CampaignId, claims: &[(UserId, i32)]) -> Result<i64, RedisError> {
    if claims.is_empty() {
        return Ok(0);
    }
    let keys = [redis.keys().coupon_pending(campaign)];
    parse(&ACKNOWLEDGE, redis.invoke(&ACKNOWLEDGE, &keys, &user_ranks(Args::new(), claims)).await?)
}

/// Starts staging a campaign that is missing, that still has the epoch `invalid_epoch`, or that was staged before the
/// server began to run; leaves any other alone.
pub async fn stage(
    redis: &Redis,
    campaign: CampaignId,
    plan: Plan,
    invalid_epoch: Option<i64>,
) -> Result<Staging, RedisError> {
    let args = Args::new()
        .with(invalid_epoch.unwrap_or(0))
        .with(plan.quota)
        .with(plan.open_time.micros())
        .with(plan.close_time.micros())
        .with(plan.expires_at.micros() / 1_000);
    let keys = [redis.keys().coupon_campaign(campaign)];
    let (word, epoch): (String, i64) = parse(&STAGE, redis.invoke(&STAGE, &keys, &args).await?)?;
    match word.as_str() {
        "ready" => Ok(Staging::Ready),
        "staging" => Ok(Staging::Loading { epoch }),
        _ => Err(misfit(&STAGE, word)),
    }
}

/// Loads stored coupons (user and rank) under the epoch that [`stage`] gave, and opens the campaign after the last
/// page. At most [`MAX_PAGE`].
pub async fn load(
    redis: &Redis,
    campaign: CampaignId,
    epoch: i64,
    page: &[(UserId, i32)],
    is_last: bool,
) -> Result<Loaded, RedisError> {
    let args = user_ranks(Args::new().with(epoch).with(i32::from(is_last)), page);
    let keys = [redis.keys().coupon_campaign(campaign)];
    let word: String = parse(&LOAD, redis.invoke(&LOAD, &keys, &args).await?)?;
    match word.as_str() {
        "loaded" => Ok(Loaded::Page),
        "ready" => Ok(Loaded::Ready),
        "superseded" => Ok(Loaded::Superseded),
        _ => Err(misfit(&LOAD, word)),
    }
}

/// Reads a page of claims that were ranked at least `age` ago and are not known to be stored. Starts at cursor 0.
pub async fn pending(
    redis: &Redis,
    campaign: CampaignId,
    age: Duration,
    cursor: u64,
) -> Result<PendingPage, RedisError> {
    let age_us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    let args = Args::new().with(age_us).with(cursor).with(MAX_CLAIMS);
    let keys = [redis.keys().coupon_pending(campaign)];
    let reply: Vec<Value> = parse(&PENDING, redis.invoke(&PENDING, &keys, &args).await?)?;
    let mut values = reply.into_iter();
    let cursor: u64 = parse(&PENDING, values.next().unwrap_or(Value::Nil))?;
    let claims = values.map(pending_claim).collect::<Result<_, _>>()?;
    Ok(PendingPage { claims, next: (cursor != 0).then_some(cursor) })
}

/// Returns the progress of a campaign; `None` if it is missing.
pub async fn snapshot(redis: &Redis, campaign: CampaignId) -> Result<Option<Progress>, RedisError> {
    let reply = redis.invoke(&SNAPSHOT, &both_keys(redis, campaign), &Args::new()).await?;
    let numbers: Vec<i64> = parse(&SNAPSHOT, reply)?;
    match numbers[..] {
        [] => Ok(None),
        [ready, epoch, quota, issued, pending] => Ok(Some(Progress {
            ready: ready == 1,
            epoch,
            quota: small(&SNAPSHOT, quota)?,
            issued: small(&SNAPSHOT, issued)?,
            pending: small(&SNAPSHOT, pending)?,
        })),
        _ => Err(misfit(&SNAPSHOT, numbers)),
    }
}

fn both_keys(redis: &Redis, campaign: CampaignId) -> [String; 2] {
    [redis.keys().coupon_campaign(campaign), redis.keys().coupon_pending(campaign)]
}

fn user_ranks(mut args: Args, coupons: &[(UserId, i32)]) -> Args {
    for (user, rank) in coupons {
        args.push(user.to_string());
        args.push(*rank);
    }
    args
}

fn outcome(
    value: Value,
    (user, request_id): &(UserId, RequestId),
    now: Timestamp,
    epoch: i64,
) -> Result<Outcome, RedisError> {
    let parts: Vec<Value> = parse(&CLAIM, value)?;
    let mut parts = parts.into_iter();
    let word: String = parse(&CLAIM, parts.next().unwrap_or(Value::Nil))?;
    let asked = |rank| Ranked { user: *user, request_id: request_id.clone(), rank, claimed_at: now, epoch };
    match word.as_str() {
        "ranked" => Ok(Outcome::Ranked(asked(parse(&CLAIM, parts.next().unwrap_or(Value::Nil))?))),
        "seen" => Ok(Outcome::Stored(asked(parse(&CLAIM, parts.next().unwrap_or(Value::Nil))?))),
        "pending" => Ok(Outcome::Pending(ranked(&CLAIM, *user, Value::Array(parts.collect()))?)),
        "not_open" => Ok(Outcome::NotOpen),
        "closed" => Ok(Outcome::Closed),
        "sold_out" => Ok(Outcome::SoldOut),
        "not_ready" => Ok(Outcome::NotReady),
        _ => Err(misfit(&CLAIM, word)),
    }
}

fn pending_claim(value: Value) -> Result<Ranked, RedisError> {
    let mut parts: Vec<Value> = parse(&PENDING, value)?;
    if parts.is_empty() {
        return Err(misfit(&PENDING, "an empty claim"));
    }
    let user: String = parse(&PENDING, parts.remove(0))?;
    let user = user.parse().map_err(|error| misfit(&PENDING, error))?;
    ranked(&PENDING, user, Value::Array(parts))
}

/// Parses rank, claimed_at_us, epoch, request_id.
fn ranked(script: &Script, user: UserId, parts: Value) -> Result<Ranked, RedisError> {
    let (rank, claimed_at_us, epoch, request_id): (i32, i64, i64, String) = parse(script, parts)?;
    let request_id = RequestId::parse(&request_id).map_err(|error| misfit(script, error))?;
    Ok(Ranked { user, request_id, rank, claimed_at: Timestamp::from_micros(claimed_at_us), epoch })
}

fn parse<T: FromRedisValue>(script: &Script, value: Value) -> Result<T, RedisError> {
    T::from_redis_value(value).map_err(|error| misfit(script, error))
}

fn small(script: &Script, number: i64) -> Result<i32, RedisError> {
    i32::try_from(number).map_err(|error| misfit(script, error))
}

fn misfit(script: &Script, what: impl std::fmt::Debug) -> RedisError {
    RedisError::reply(script.name(), what)
}
