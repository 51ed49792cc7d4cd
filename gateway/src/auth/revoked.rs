//! A copy of the list in Redis of logins whose access tokens are refused, so that a token is checked without a query.
//!
//! The list is polled once a second, so a login that another gateway has revoked ends here a second or two later, and
//! one that was revoked here at once. While Redis is away the last copy counts.

use super::logins::Logins;
use stampede_lua::{
    Redis, RedisError,
    gate::{self, Revocation},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::Timestamp;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time that each poll reads again: the clock of a Redis that takes over may be behind that of the one before.
const OVERLAP: Duration = Duration::from_secs(60);

/// The revoked logins, and whether Redis has room for more logins.
pub struct Revoked {
    redis: Redis,
    logins: Logins,
    has_room: AtomicBool,
}

impl Revoked {
    /// Loads the whole list. Returns the time to poll from.
    pub async fn load(redis: Redis) -> Result<(Self, Timestamp), RedisError> {
        let revoked = Self { redis, logins: Logins::none(), has_room: AtomicBool::new(true) };
        let since = revoked.poll(Timestamp::from_micros(0)).await?;
        Ok((revoked, since))
    }

    /// Returns whether the tokens of this login are refused.
    pub fn has(&self, login: &str) -> bool {
        self.logins.has(login)
    }

    /// Returns whether Redis has room for more logins.
    pub fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// Refuses the tokens of this login from now on: here at once, in every other gateway from its next poll. The last
    /// of them expires at `until` by itself.
    pub async fn add(&self, login: &str, until: Timestamp) -> Result<(), Problem> {
        if !gate::revoke(&self.redis, login, until).await? {
            return Err(Problem::new(Reason::Overloaded, "too many logins are revoked at the moment"));
        }
        self.logins.insert(vec![Revocation { login: login.to_owned(), until }], Timestamp::now());
        Ok(())
    }

    pub async fn wait_revoked(&self, login: &str) {
        self.logins.wait_revoked(login).await;
    }

    /// Polls the list once a second until `stop`, starting where the first load ended.
    pub async fn follow(self: Arc<Self>, mut since: Timestamp, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_known = true;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.poll(since).await {
                Ok(next) => (since, is_known) = (next, true),
                Err(error) => {
                    if is_known {
                        tracing::warn!(error.cause = %error, "cannot poll revoked logins; those known stay so");
                    }
                    is_known = false;
                }
            }
        }
        Ok(())
    }

    /// Reads the entries that were written since then. Returns where to go on.
    async fn poll(&self, since: Timestamp) -> Result<Timestamp, RedisError> {
        let (revoked, next) = gate::revoked_since(&self.redis, since.minus(OVERLAP)).await?;
        let now = Timestamp::now();
        self.logins.remove_expired(now);
        self.logins.insert(revoked, now);
        self.has_room.store(self.redis.has_room_for_logins().await?, Ordering::Relaxed);
        Ok(next.max(since))
    }
}
