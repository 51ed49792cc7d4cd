//! One Redis, a server or a cluster, by a pool of connections.

use crate::{
    Args, Keys, RedisError, Script,
    address::Address,
    connection::{Connections, Link, NODE_CONNECT_TIMEOUT, TIMEOUT},
};
use deadpool::{
    Runtime,
    managed::{Object, Pool},
};
use redis::{ErrorKind, ServerErrorKind, Value};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Most connections of one process. A script takes well under a millisecond, so few calls are under way at a time.
const MAX_CONNECTIONS: usize = 8;
/// The same to a cluster: calls that wait for a master that is away, as long as any call may, leave connections for
/// those to the others.
const MAX_CLUSTER_CONNECTIONS: usize = 128;
/// Longest wait for the answer to a ping of a connection that was idle. No call fails for want of one: the connection
/// is replaced, and there has to be time left for that.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Where Redis is, and under which prefix the keys are.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/database]`, or for a cluster
    /// `redis-cluster://[user:password@]host:port[,host:port...]`, of which one node has to answer.
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
    is_cluster: bool,
    timeout: Duration,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Redis {
    /// Opens a first connection. Fails if the server does not answer.
    pub async fn connect(config: RedisConfig) -> Result<Self, RedisError> {
        let address = Address::parse(&config.url)?;
        let is_cluster = address.is_cluster();
        let pool = Pool::builder(Connections::to(address)?)
            .max_size(if is_cluster { MAX_CLUSTER_CONNECTIONS } else { MAX_CONNECTIONS })
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(TIMEOUT))
            .recycle_timeout(Some(PING_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::Pool(error.to_string()))?;
        drop(pool.get().await?);
        let keys = Arc::new(Keys::new(config.key_prefix));
        Ok(Self { pool, keys, url: config.url.into(), is_cluster, timeout: TIMEOUT })
    }

    /// Returns the same Redis, with the same connections, for calls that fail after `timeout` if that is less than two
    /// seconds.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(TIMEOUT), ..self.clone() }
    }

    /// The longest time of a call, the wait for a connection included.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The names of the keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The URL that it was connected with, for a connection of another kind (subscribing).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is a cluster, in which each key is on one of several servers.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Runs `script`, in a cluster on the master that has its keys. Sends its source on NOSCRIPT, and retries once on
    /// another connection if the first one broke or leads to no master, so a script that runs twice for one call must
    /// change nothing more. Fails after two seconds, or what [`Self::with_timeout`] says; whether the script ran is not
    /// known then.
    pub async fn invoke(&self, script: &Script, keys: &[String], args: &Args) -> Result<Value, RedisError> {
        self.in_time(&Call::Script { script, keys, args }).await
    }

    /// Runs one plain command of the server itself (never one on keys: those go through scripts), in a cluster on every
    /// master that can be reached. Returns the answer of each; fails if one of them does.
    pub(crate) async fn command_on_all_masters(&self, command: &redis::Cmd) -> Result<Vec<Value>, RedisError> {
        let answer = self.in_time(&Call::Command(command)).await?;
        Ok(match answer {
            Value::Map(masters) if self.is_cluster => masters.into_iter().map(|(_, answer)| answer).collect(),
            answer => vec![answer],
        })
    }

    async fn in_time(&self, call: &Call<'_>) -> Result<Value, RedisError> {
        if self.timeout.is_zero() {
            return Err(RedisError::TimedOut(self.timeout));
        }
        let began = Instant::now();
        let mut used = None;
        let answer = async {
            match self.on_a_connection(call, &mut used).await {
                Err(RedisError::Server(error)) if is_of_connection(&error) => {
                    self.on_a_connection(call, &mut used).await
                }
                answer => answer,
            }
        };
        let Ok(answer) = tokio::time::timeout(self.timeout, answer).await else {
            if self.is_cluster {
                // A master that hangs does not redirect to its successor, and the client asks no other node: a fresh
                // connection learns the slots from the nodes that answer. The ones that were opened meanwhile are kept,
                // so that calls which time out together empty the pool but once.
                discard(&mut used);
                // A call that had next to no time left says nothing of the other connections.
                if self.timeout >= 2 * NODE_CONNECT_TIMEOUT {
                    drop(self.pool.retain(|_, metrics| metrics.created > began));
                }
            }
            return Err(RedisError::TimedOut(self.timeout));
        };
        answer
    }

    /// Makes the call, and leaves its connection in `used` unless it broke.
    async fn on_a_connection(&self, call: &Call<'_>, used: &mut Option<Connection>) -> Result<Value, RedisError> {
        let conn = used.insert(self.pool.get().await?);
        let answer = call.run(conn).await;
        if let Err(error) = &answer {
            if error.is_io_error() || is_of_connection(error) {
                discard(used);
            }
            if is_of_connection(error) {
                // The others most likely lead to the same server, which is gone or no master any more.
                drop(self.pool.retain(|_, _| false));
            }
        }
        Ok(answer?)
    }
}

/// A connection that goes back to the pool when it is dropped.
type Connection = Object<Connections>;

/// Closes a connection in place of giving it back.
fn discard(used: &mut Option<Connection>) {
    drop(used.take().map(Object::take));
}

/// One call to the server, which may be retried.
enum Call<'a> {
    Script { script: &'a Script, keys: &'a [String], args: &'a Args },
    Command(&'a redis::Cmd),
}

impl Call<'_> {
    async fn run(&self, link: &mut Link) -> Result<Value, redis::RedisError> {
        match self {
            Self::Command(command) => link.ask_masters(command).await,
            Self::Script { script, keys, args } => {
                let answer: Result<Value, redis::RedisError> = script.by_hash(keys, args).query_async(link).await;
                match answer {
                    Err(error) if is_of_server(&error, &[ServerErrorKind::NoScript]) => {
                        script.by_source(keys, args).query_async(link).await
                    }
                    answer => answer,
                }
            }
        }
    }
}

/// Whether a retry on another connection may succeed: this one broke, or leads to a server that is no master any more
/// or not yet. In a cluster the client has retried itself, up to its limit.
fn is_of_connection(error: &redis::RedisError) -> bool {
    let no_master = [ServerErrorKind::ReadOnly, ServerErrorKind::BusyLoading, ServerErrorKind::MasterDown];
    is_of_server(error, &no_master) || error.is_cluster_error() || error.is_unrecoverable_error()
}

fn is_of_server(error: &redis::RedisError, kinds: &[ServerErrorKind]) -> bool {
    kinds.iter().any(|kind| error.kind() == ErrorKind::Server(*kind))
}
