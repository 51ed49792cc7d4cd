//! One Redis, by a pool of connections.

use crate::{Args, Keys, RedisError, Script};
use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, Pool, RecycleResult},
};
use redis::{AsyncConnectionConfig, ErrorKind, RetryMethod, ServerErrorKind, Value, aio::MultiplexedConnection};
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

    /// Runs `script`. A server that has forgotten it is given it again, and a call that a connection has lost is made
    /// once more on another: a script that runs again for the same call must change nothing more. Fails after two
    /// seconds; whether the script ran is not known then.
    pub async fn invoke(&self, script: &Script, keys: &[String], args: &Args) -> Result<Value, RedisError> {
        self.in_time(&Call::Script { script, keys, args }).await
    }

    /// Runs one plain command of the server itself (never one on keys: those go through scripts).
    pub(crate) async fn command(&self, command: &redis::Cmd) -> Result<Value, RedisError> {
        self.in_time(&Call::Command(command)).await
    }

    async fn in_time(&self, call: &Call<'_>) -> Result<Value, RedisError> {
        let answer = async {
            match self.on_a_connection(call).await {
                Err(RedisError::Server(error)) if is_of_connection(&error) => self.on_a_connection(call).await,
                answer => answer,
            }
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(RedisError::TimedOut(TIMEOUT)))
    }

    async fn on_a_connection(&self, call: &Call<'_>) -> Result<Value, RedisError> {
        let mut conn = self.pool.get().await?;
        let answer = call.run(&mut conn).await;
        if let Err(error) = &answer {
            if error.is_io_error() || is_of_connection(error) {
                drop(Object::take(conn));
            }
            if is_of_connection(error) {
                // The others most likely lead to the same server, which is gone or no master any more.
                drop(self.pool.retain(|_, _| false));
            }
        }
        Ok(answer?)
    }
}

/// What is asked of the server, as often as it takes.
enum Call<'a> {
    Script { script: &'a Script, keys: &'a [String], args: &'a Args },
    Command(&'a redis::Cmd),
}

impl Call<'_> {
    async fn run(&self, Connection { conn, run_id }: &mut Connection) -> Result<Value, redis::RedisError> {
        match self {
            Self::Command(command) => command.query_async(conn).await,
            Self::Script { script, keys, args } => {
                let mut call = script.inner().prepare_invoke();
                for key in *keys {
                    call.key(key);
                }
                for arg in args.values() {
                    call.arg(arg.as_slice());
                }
                if script.takes_run_id() {
                    call.arg(run_id.as_str());
                }
                call.invoke_async(conn).await
            }
        }
    }
}

/// Whether another connection may well do what this one did not: it broke, or it leads to a server that is no master
/// any more or not yet.
fn is_of_connection(error: &redis::RedisError) -> bool {
    let of_server = [ServerErrorKind::ReadOnly, ServerErrorKind::BusyLoading, ServerErrorKind::MasterDown];
    let is_of_server = of_server.into_iter().any(|kind| error.kind() == ErrorKind::Server(kind));
    is_of_server
        || matches!(error.retry_method(), RetryMethod::Reconnect | RetryMethod::ReconnectFromInitialConnections)
}

/// Reads the run id from the answer to `INFO server`. Fails if there is none: a restart would go unnoticed.
fn read_run_id(info: &str) -> Result<String, redis::RedisError> {
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim();
    if run_id.is_empty() {
        let kind = ErrorKind::UnexpectedReturnType;
        return Err((kind, "the server does not say its run_id in INFO server").into());
    }
    Ok(run_id.to_owned())
}

/// Opens connections, and asks those that were idle whether they live.
struct Connections(deadpool_redis::Manager);

/// A connection, and the run of the server that it leads to: a server that starts anew ends its connections.
struct Connection {
    conn: MultiplexedConnection,
    run_id: String,
}

impl managed::Manager for Connections {
    type Type = Connection;
    type Error = redis::RedisError;

    async fn create(&self) -> Result<Connection, redis::RedisError> {
        let mut conn = self.0.create().await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut conn).await?;
        let run_id = read_run_id(&info)?;
        Ok(Connection { conn, run_id })
    }

    async fn recycle(&self, conn: &mut Connection, metrics: &Metrics) -> RecycleResult<redis::RedisError> {
        if metrics.last_used() < TRUSTED_FOR { Ok(()) } else { self.0.recycle(&mut conn.conn, metrics).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_read_and_missed() {
        let info = "# Server\r\nredis_version:7.2.4\r\nrun_id:0a1b2c\r\ntcp_port:6379\r\n";
        assert_eq!(read_run_id(info).as_deref(), Ok("0a1b2c"));
        for without in ["", "# Server\r\ntcp_port:6379\r\n", "run_id:\r\n"] {
            let error = read_run_id(without).expect_err("no run id");
            assert!(error.to_string().contains("does not say its run_id"), "{error}");
            assert!(!is_of_connection(&error), "another connection would not say it either");
        }
    }
}
