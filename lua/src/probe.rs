//! Probes whether a server publishes expired keys where its settings must not be read: sets a key that expires, and
//! waits for its notification.

use crate::{Args, Redis, RedisError, script::script, timer::Expirations};
use stampede_vocab::{EventId, UserId};
use std::time::Duration;
use tokio::time::timeout;

script!(PROBE, "timer/probe");

/// When the key expires, counted from when it is set.
const EXPIRES_AFTER_MS: u64 = 20;
/// Longest wait for one notification. Then the key is set again, which makes the one before expire.
const WAIT: Duration = Duration::from_millis(200);
/// How often it is set.
const TRIES: u32 = 10;
/// Most timers that are taken at a time, as those of real events may expire meanwhile.
const BATCH: usize = 100;

/// Whether this server publishes expired keys. Takes two seconds if it does not. The key is named as the timer of an
/// event that does not exist, so other listeners find nothing to do.
pub(crate) async fn publishes_expired(redis: &Redis) -> Result<bool, RedisError> {
    let mut expirations = Expirations::subscribe(redis).await?;
    let event_id = EventId::from_uuid(UserId::random().uuid());
    let (keys, args) = ([redis.keys().event_opens(event_id)], Args::new().with(EXPIRES_AFTER_MS));
    for _ in 0..TRIES {
        redis.invoke(&PROBE, &keys, &args).await?;
        if is_published(&mut expirations, event_id).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the expiration of a timer of the event is published in time. Fails if the connection is lost meanwhile.
async fn is_published(expirations: &mut Expirations, event_id: EventId) -> Result<bool, RedisError> {
    let published = async {
        loop {
            let lost = || RedisError::Pool("the one for expired keys is lost".to_owned());
            let expired = expirations.next(BATCH).await.ok_or_else(lost)?;
            if expired.iter().any(|(expired_id, _)| *expired_id == event_id) {
                return Ok(true);
            }
        }
    };
    timeout(WAIT, published).await.unwrap_or(Ok(false))
}
