//! The settings that a Redis must have before a service runs on it, and how to mend one that lacks them.

use crate::{Redis, RedisError, memory::field, probe};
use redis::{ErrorKind, FromRedisValue, ServerErrorKind, Value};
use std::collections::HashMap;

impl Redis {
    /// Refuses a server that evicts keys when memory is short: an evicted item would look unknown or sold out.
    pub async fn require_noeviction(&self) -> Result<(), RedisError> {
        let infos = self.memory_infos().await?;
        let policies = infos.iter().map(|info| field(info, "maxmemory_policy"));
        let said = match policies.into_iter().find(|policy| *policy != Some("noeviction")) {
            None => return Ok(()),
            Some(Some(policy)) => format!("this Redis evicts keys (maxmemory-policy is {policy})"),
            Some(None) => {
                "this Redis does not report its maxmemory_policy in INFO memory, so it may evict keys".to_owned()
            }
        };
        Err(RedisError::Refused(format!(
            "{said}, which would lose stock and coupons: \
             set `maxmemory-policy noeviction` in redis.conf, or run `redis-cli CONFIG SET maxmemory-policy noeviction`"
        )))
    }

    /// Refuses a server that does not publish expired keys, by which events open on time. Where the setting must not be
    /// read, as on a managed server, it lets a key expire and waits for the notification, up to two seconds.
    pub async fn require_expiry_notifications(&self) -> Result<(), RedisError> {
        let said = match self.settings("notify-keyspace-events").await? {
            Some(flags) => match flags.into_iter().find(|flags| !says_expired(flags)) {
                None => return Ok(()),
                Some(flags) => format!("notify-keyspace-events is \"{flags}\""),
            },
            None => {
                if probe::publishes_expired(self).await? {
                    return Ok(());
                }
                "notify-keyspace-events cannot be read, and no notification came of a key that expired".to_owned()
            }
        };
        Err(RedisError::Refused(format!(
            "this Redis does not publish expired keys ({said}), so events would open late: \
             set `notify-keyspace-events Ex` in redis.conf, or run `redis-cli CONFIG SET notify-keyspace-events Ex`"
        )))
    }

    /// Returns whether the server frees expired and deleted keys in the background; `None` if its settings cannot be
    /// read.
    pub async fn frees_lazily(&self) -> Result<Option<bool>, RedisError> {
        let expired = self.settings("lazyfree-lazy-expire").await?;
        let deleted = self.settings("lazyfree-lazy-user-del").await?;
        Ok(expired
            .zip(deleted)
            .map(|(expired, deleted)| expired.iter().chain(&deleted).all(|setting| setting == "yes")))
    }

    /// Reads a setting of the server, or of each master of a cluster; `None` if this user may not, or the server has no
    /// such command or setting.
    async fn settings(&self, name: &str) -> Result<Option<Vec<String>>, RedisError> {
        let replies = match self.command_on_all_masters(redis::cmd("CONFIG").arg("GET").arg(name)).await {
            Err(RedisError::Server(error)) if is_refused(&error) => return Ok(None),
            replies => replies?,
        };
        let setting = |reply: Value| {
            let settings = HashMap::<String, String>::from_redis_value(reply).map_err(redis::RedisError::from);
            settings.map(|mut settings| settings.remove(name))
        };
        Ok(replies.into_iter().map(setting).collect::<Result<_, _>>()?)
    }
}

fn says_expired(flags: &str) -> bool {
    flags.contains('E') && (flags.contains('x') || flags.contains('A'))
}

/// Whether the server does not do this at all: not for this user, or, as managed servers say, because there is no such
/// command.
fn is_refused(error: &redis::RedisError) -> bool {
    let refusals = [ServerErrorKind::NoPerm, ServerErrorKind::ResponseError];
    refusals.into_iter().any(|kind| error.kind() == ErrorKind::Server(kind))
}
