//! One Redis, by a pool of connections.

use crate::{Args, Keys, RedisError, Script};
use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, Pool, RecycleResult},
};
use redis::{AsyncConnectionConfig, Value, aio::MultiplexedConnection};
use std::{sync::Arc, time::Duration};

/// Most connections of one process. A script takes well under a millisecond, so few calls are under way at a time.
const MAX_CONNECTIONS: usize = 8;
/// A connection that was idle for longer is asked whether it lives before it is used. To ask each time would be most of
/// what a small script costs.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Longest wait for the answer to that.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait for an answer, the wait for a connection included.
const TIMEOUT: Duration = Duration::from_secs(2);

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
    pool: Pool<Connections>,
    keys: Arc<Keys>,
    url: Arc<str>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Redis {
    /// Opens a first connection. Fails if the server does not answer.
    pub async fn connect(config: RedisConfig) -> Result<Self, RedisError> {
        // The default of the client gives up after half a second, which a server that is busy or writes a snapshot
        // takes.
        let connection =
            AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT));
        let manager = deadpool_redis::Manager::new_with_config(config.url.as_str(), connection)?;
        let pool = Pool::builder(Connections(manager))
            .max_size(MAX_CONNECTIONS)
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(TIMEOUT))
            .recycle_timeout(Some(PING_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::Pool(error.to_string()))?;
        drop(pool.get().await?);
        Ok(Self { pool, keys: Arc::new(Keys::new(config.key_prefix)), url: config.url.into() })
    }

    /// The names of the keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The URL it was connected with, for a connection of another kind (subscribing).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs `script`. A server that has forgotten it is given it again. Fails after two seconds; whether the script ran
    /// is not known then.
    pub async fn invoke(&self, script: &Script, keys: &[String], args: &Args) -> Result<Value, RedisError> {
        self.in_time(async |conn| {
            let mut call = script.inner().prepare_invoke();
            for key in keys {
                call.key(key);
            }
            for arg in args.values() {
                call.arg(arg.as_slice());
            }
            call.invoke_async(conn).await
        })
        .await
    }

    /// Runs one plain command of the server itself (never one on keys: those go through scripts).
    pub(crate) async fn command(&self, command: &redis::Cmd) -> Result<Value, RedisError> {
        self.in_time(async |conn| command.query_async(conn).await).await
    }

    async fn in_time(
        &self,
        call: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<Value, redis::RedisError>,
    ) -> Result<Value, RedisError> {
        let answer = async {
            let mut conn = self.pool.get().await?;
            let answer = call(&mut conn).await;
            if answer.as_ref().is_err_and(|error| error.is_io_error() || error.is_connection_dropped()) {
                drop(Object::take(conn));
            }
            Ok(answer?)
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(RedisError::TimedOut(TIMEOUT)))
    }
}

/// Opens connections, and asks those that were idle whether they live.
struct Connections(deadpool_redis::Manager);

impl managed::Manager for Connections {
    type Type = MultiplexedConnection;
    type Error = redis::RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        self.0.create().await
    }

    async fn recycle(&self, conn: &mut MultiplexedConnection, metrics: &Metrics) -> RecycleResult<redis::RedisError> {
        if metrics.last_used() < TRUSTED_FOR { Ok(()) } else { self.0.recycle(conn, metrics).await }
    }
}
