//! The timers of events: arming them, disarming them, and the notifications of those that have expired.
//!
//! A notification is only the fast path. It may be late or lost, and may come a little early by the caller's clock; the
//! listener must poll as well.

use crate::{Args, Keys, Redis, RedisError, Timer, connection::TIMEOUT, script::script};
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind,
    aio::MultiplexedConnection,
};
use stampede_vocab::{EventId, Timestamp};
use tokio::sync::mpsc;

script!(ARM, "timer/arm");
script!(DISARM, "timer/disarm");

/// Most expirations in the queue. One that does not fit is dropped, like a lost notification.
const QUEUE: usize = 4_096;

/// The transitions of one version of an event that are still ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Event.
    pub event_id: EventId,
    /// Its version: the timers of an older one never replace those of a newer one.
    pub version: i64,
    /// When it opens, unless that is past.
    pub open_time: Option<Timestamp>,
    /// When it closes, unless that is past.
    pub close_time: Option<Timestamp>,
}

/// Outcome of [`arm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Armed {
    /// The timers are those of this call.
    Yes,
    /// A newer version of the event has armed its own.
    Overtaken,
}

/// Arms these timers and removes the others of the event. Doing it again changes nothing.
pub async fn arm(redis: &Redis, timers: Timers) -> Result<Armed, RedisError> {
    let args = Args::new().with(timers.version).with(millis(timers.open_time)).with(millis(timers.close_time));
    let reply = redis.invoke(&ARM, &keys(redis, timers.event_id), &args).await?;
    match i64::from_redis_value_ref(&reply) {
        Ok(1) => Ok(Armed::Yes),
        Ok(0) => Ok(Armed::Overtaken),
        _ => Err(RedisError::reply(ARM.name(), reply)),
    }
}

/// Removes the timers of an event that has ended. Returns how many there were.
pub async fn disarm(redis: &Redis, event_id: EventId) -> Result<u32, RedisError> {
    let reply = redis.invoke(&DISARM, &keys(redis, event_id), &Args::new()).await?;
    u32::from_redis_value_ref(&reply).map_err(|_| RedisError::reply(DISARM.name(), reply))
}

fn keys(redis: &Redis, event_id: EventId) -> [String; 2] {
    [redis.keys().event_opens(event_id), redis.keys().event_closes(event_id)]
}

/// Whole milliseconds, rounded up so that no timer expires before its time; 0 for none.
fn millis(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.micros().div_euclid(1_000) + i64::from(at.micros().rem_euclid(1_000) > 0))
}

impl Redis {
    /// Fails for a cluster: each node publishes the expirations of its own keys only.
    pub fn require_one_server(&self) -> Result<(), RedisError> {
        if !self.is_cluster() {
            return Ok(());
        }
        let refused = "this Redis is a cluster, and the timers of events need one server: give the event service a Redis \
                       of its own, such as redis://host:port/1";
        Err(RedisError::Refused(refused.to_owned()))
    }
}

/// A connection on which Redis publishes expired timers, of this key prefix and logical database.
pub struct Expirations {
    connection: MultiplexedConnection,
    expired: mpsc::Receiver<(EventId, Timer)>,
}

impl Expirations {
    /// Subscribes on a connection of its own to the server that `redis` is connected to. Fails for a cluster.
    pub async fn subscribe(redis: &Redis) -> Result<Self, RedisError> {
        redis.require_one_server()?;
        let info = redis.url().into_connection_info()?;
        let channel = format!("__keyevent@{}__:expired", info.redis_settings().db());
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings))?;

        let (sender, expired) = mpsc::channel(QUEUE);
        let keys = redis.keys().clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_push_sender(move |push| forward(&keys, push, &sender));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(channel).await?;
        Ok(Self { connection, expired })
    }

    /// Returns expired timers, at least one and `limit` at most; `None` once the connection is lost.
    pub async fn next(&mut self, limit: usize) -> Option<Vec<(EventId, Timer)>> {
        let mut batch = Vec::new();
        let taken = self.expired.recv_many(&mut batch, limit).await;
        (taken > 0).then_some(batch)
    }

    /// Fails if the server does not answer on this connection any more, or is a replica now, as after a switch-over: a
    /// replica keeps its subscribers and publishes no expirations. A subscription that is silent shows neither.
    pub async fn check(&self) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        if info.lines().any(|line| line == "role:slave") {
            return Err(RedisError::Refused("this Redis is a replica now, which publishes no expired keys".to_owned()));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Expirations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expirations").field("waiting", &self.expired.len()).finish_non_exhaustive()
    }
}

/// Called on the connection's own task, so it never waits: a foreign key, or one that does not fit, is dropped.
fn forward(keys: &Keys, push: PushInfo, expired: &mpsc::Sender<(EventId, Timer)>) -> Result<(), redis::RedisError> {
    if push.kind == PushKind::Message {
        let (_channel, key) = <(String, String)>::from_redis_value(redis::Value::Array(push.data))?;
        if let Some(timer) = keys.parse_event_timer(&key) {
            // A full queue loses a notification; the listener's polling makes up for it.
            let _ = expired.try_send(timer);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_never_expires_before_its_time() {
        for (micros, expected) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(millis(Some(Timestamp::from_micros(micros))), expected, "{micros}");
        }
        assert_eq!(millis(None), 0);
    }
}
