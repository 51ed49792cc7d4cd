//! One Redis, by a pool of connections.

use crate::{Args, Keys, RedisError, Script};
use deadpool_redis::{Connection, Manager, Pool, Runtime};
use redis::{AsyncConnectionConfig, Value};
use std::{sync::Arc, time::Duration};

/// Most connections of one process. Batches are few at a time, and a script takes well under a millisecond.
const MAX_CONNECTIONS: usize = 8;
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
    pool: Pool,
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
        let pool = Pool::builder(Manager::new_with_config(config.url.as_str(), connection)?)
            .max_size(MAX_CONNECTIONS)
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(TIMEOUT))
            .recycle_timeout(Some(TIMEOUT))
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
        call: impl AsyncFnOnce(&mut Connection) -> Result<Value, redis::RedisError>,
    ) -> Result<Value, RedisError> {
        let answer = async { Ok(call(&mut self.pool.get().await?).await?) };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(RedisError::TimedOut(TIMEOUT)))
    }
}
