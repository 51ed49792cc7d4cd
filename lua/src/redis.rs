//! Connections to one Redis: lanes for scripts, since a pool's checkout costs more than a script does.
//!
//! A lane is an object of the pool that stays checked out, whose multiplexed connection every call shares. It is
//! replaced when it fails.

use crate::{Args, Keys, RedisError, Script};
use deadpool_redis::{Config, Connection, Pool, Runtime};
use redis::{Value, aio::MultiplexedConnection};
use std::{
    future::Future,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How many connections carry the scripts.
const LANES: usize = 2;
/// Longest wait for an answer. A script takes well under a millisecond.
const DEADLINE: Duration = Duration::from_secs(2);

/// Where Redis is, and under which prefix the keys are.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/database]`.
    pub url: String,
    /// Put before every key name; may be empty.
    pub key_prefix: String,
}

/// One Redis. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    lanes: [RwLock<Lane>; LANES],
    next: AtomicUsize,
    keys: Keys,
    url: String,
}

/// The pooled object is kept only so that the pool counts it; `generation` tells whether somebody replaced it.
struct Lane {
    connection: MultiplexedConnection,
    generation: u64,
    _checked_out: Connection,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("keys", &self.shared.keys).finish_non_exhaustive()
    }
}

impl Redis {
    /// Opens the lanes. Fails if the server does not answer.
    pub async fn connect(config: RedisConfig) -> Result<Self, RedisError> {
        let pool = Config::from_url(&config.url)
            .builder()
            .map_err(|error| RedisError::Pool(error.to_string()))?
            .max_size(LANES * 2 + 2)
            .wait_timeout(Some(DEADLINE))
            .create_timeout(Some(DEADLINE))
            .recycle_timeout(Some(DEADLINE))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::Pool(error.to_string()))?;
        let lanes = [RwLock::new(open(&pool, 0).await?), RwLock::new(open(&pool, 0).await?)];
        let keys = Keys::new(config.key_prefix);
        Ok(Self { shared: Arc::new(Shared { pool, lanes, next: AtomicUsize::new(0), keys, url: config.url }) })
    }

    /// The names of the keys.
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// The URL it was connected with, for a connection of another kind (subscribing).
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Runs `script`. A server that has forgotten it is given it again. Fails after two seconds.
    pub async fn invoke(&self, script: &Script, keys: &[String], args: &Args) -> Result<Value, RedisError> {
        self.on_a_lane(|mut lane| async move {
            let mut call = script.inner().prepare_invoke();
            for key in keys {
                call.key(key);
            }
            for arg in args.values() {
                call.arg(arg.as_slice());
            }
            call.invoke_async(&mut lane).await
        })
        .await
    }

    /// Runs one plain command of the server itself (never one on keys: those go through scripts).
    pub(crate) async fn command(&self, command: &redis::Cmd) -> Result<Value, RedisError> {
        self.on_a_lane(|mut lane| async move { command.query_async(&mut lane).await }).await
    }

    async fn on_a_lane<F, Fut>(&self, call: F) -> Result<Value, RedisError>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = Result<Value, redis::RedisError>>,
    {
        let index = self.shared.next.fetch_add(1, Ordering::Relaxed) % LANES;
        let (connection, generation) = self.lane(index);
        let outcome = match tokio::time::timeout(DEADLINE, call(connection)).await {
            Ok(outcome) => outcome.map_err(RedisError::from),
            Err(_) => Err(RedisError::TimedOut(DEADLINE)),
        };
        if outcome.as_ref().is_err_and(lane_is_broken) {
            self.replace(index, generation).await;
        }
        outcome
    }

    fn lane(&self, index: usize) -> (MultiplexedConnection, u64) {
        let lane = self.shared.lanes[index].read().unwrap_or_else(std::sync::PoisonError::into_inner);
        (lane.connection.clone(), lane.generation)
    }

    /// Puts a new connection in the place of a broken one, unless somebody did so first. While the server is away the
    /// old one stays, and the next call tries again.
    async fn replace(&self, index: usize, broken: u64) {
        let Ok(fresh) = open(&self.shared.pool, broken + 1).await else { return };
        let mut lane = self.shared.lanes[index].write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lane.generation == broken {
            tracing::info!(redis.lane = index, "redis connection replaced");
            *lane = fresh;
        }
    }
}

async fn open(pool: &Pool, generation: u64) -> Result<Lane, RedisError> {
    let checked_out = pool.get().await.map_err(|error| RedisError::Pool(error.to_string()))?;
    let connection = AsRef::<MultiplexedConnection>::as_ref(&checked_out).clone();
    Ok(Lane { connection, generation, _checked_out: checked_out })
}

fn lane_is_broken(error: &RedisError) -> bool {
    match error {
        RedisError::Server(error) => error.is_io_error() || error.is_connection_dropped() || error.is_timeout(),
        RedisError::TimedOut(_) | RedisError::Pool(_) => true,
        RedisError::Reply { .. } | RedisError::Refused(_) => false,
    }
}
