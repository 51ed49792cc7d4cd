//! What a Redis must be set to before a service runs on it, and how to mend one that is not.

use crate::{Redis, RedisError};
use redis::{FromRedisValue, Value};
use std::collections::HashMap;

impl Redis {
    /// Refuses a server that evicts keys when memory is short: an evicted item would look unknown or sold out.
    pub async fn require_noeviction(&self) -> Result<(), RedisError> {
        let policies = self.settings("maxmemory-policy").await?;
        let Some(policy) = policies.into_iter().find(|policy| policy != "noeviction") else { return Ok(()) };
        Err(RedisError::Refused(format!(
            "this Redis evicts keys (maxmemory-policy is {policy}), which would lose stock and coupons: \
             set `maxmemory-policy noeviction` in redis.conf, or run `redis-cli CONFIG SET maxmemory-policy noeviction`"
        )))
    }

    /// Refuses a server that does not publish expired keys, by which event openings are heard of.
    pub async fn require_expiry_notifications(&self) -> Result<(), RedisError> {
        let tells = |flags: &String| flags.contains('E') && (flags.contains('x') || flags.contains('A'));
        let settings = self.settings("notify-keyspace-events").await?;
        let Some(flags) = settings.into_iter().find(|flags| !tells(flags)) else { return Ok(()) };
        Err(RedisError::Refused(format!(
            "this Redis does not publish expired keys (notify-keyspace-events is \"{flags}\"), so events would open late: \
             set `notify-keyspace-events Ex` in redis.conf, or run `redis-cli CONFIG SET notify-keyspace-events Ex`"
        )))
    }

    /// The setting of the server, or of each master of a cluster.
    async fn settings(&self, name: &str) -> Result<Vec<String>, RedisError> {
        let replies = self.command_on_all_masters(redis::cmd("CONFIG").arg("GET").arg(name)).await?;
        replies.into_iter().map(|reply| setting(reply, name)).collect()
    }
}

fn setting(reply: Value, name: &str) -> Result<String, RedisError> {
    let mut settings = HashMap::<String, String>::from_redis_value(reply).map_err(redis::RedisError::from)?;
    settings.remove(name).ok_or_else(|| {
        RedisError::Refused(format!("this Redis does not tell its {name}: allow the command CONFIG GET for this user"))
    })
}
