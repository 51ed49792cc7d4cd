//! The logins whose access tokens are refused, as Redis has them, known to this process too: a token is checked without
//! a question to any server.
//!
//! The list is read once a second, so a login that another gateway has revoked ends here a second or two later, and one
//! that was revoked here at once. While Redis is away the last list counts.

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

/// Time between two looks at the list.
const PERIOD: Duration = Duration::from_secs(1);
/// So much is read again each time: the clock of a Redis that takes over may be behind that of the one before.
const OVERLAP: Duration = Duration::from_secs(60);

/// What is revoked, and whether Redis has room for more logins.
pub struct Revoked {
    redis: Redis,
    logins: Logins,
    has_room: AtomicBool,
}

impl Revoked {
    /// Reads all there is.
    pub async fn load(redis: Redis) -> Result<(Self, Timestamp), RedisError> {
        let revoked = Self { redis, logins: Logins::none(), has_room: AtomicBool::new(true) };
        let since = revoked.look(Timestamp::from_micros(0)).await?;
        Ok((revoked, since))
    }

    /// Whether the tokens of this login are refused.
    pub fn has(&self, login: &str) -> bool {
        self.logins.has(login)
    }

    /// Whether Redis has room for more logins.
    pub fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// Refuses the tokens of this login from now on, here and, as soon as they look, in every other gateway; the last
    /// of them expires at `until` by itself.
    pub async fn add(&self, login: &str, until: Timestamp) -> Result<(), Problem> {
        if !gate::revoke(&self.redis, login, until).await? {
            return Err(Problem::new(Reason::Overloaded, "too many logins are revoked at the moment"));
        }
        self.logins.learn(vec![Revocation { login: login.to_owned(), until }], Timestamp::now());
        Ok(())
    }

    /// Ends when the login is revoked.
    pub async fn happens(&self, login: &str) {
        self.logins.happens(login).await;
    }

    /// Looks at the list once a second until `stop`, going on from where the first look ended.
    pub async fn follow(self: Arc<Self>, mut since: Timestamp, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_known = true;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.look(since).await {
                Ok(next) => (since, is_known) = (next, true),
                Err(error) => {
                    if is_known {
                        tracing::warn!(error.cause = %error, "cannot look for revoked logins; those known stay so");
                    }
                    is_known = false;
                }
            }
        }
        Ok(())
    }

    /// Reads what was written since then. Returns from when to go on.
    async fn look(&self, since: Timestamp) -> Result<Timestamp, RedisError> {
        let (revoked, next) = gate::revoked_since(&self.redis, since.minus(OVERLAP)).await?;
        let now = Timestamp::now();
        self.logins.forget(now);
        self.logins.learn(revoked, now);
        self.has_room.store(self.redis.has_room_for_logins().await?, Ordering::Relaxed);
        Ok(next.max(since))
    }
}
