//! The pool of connections of one service to its one schema.

use crate::DbError;
use sqlx::{
    ConnectOptions, Connection, Executor, MySql, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode},
    pool::PoolConnection,
};
use std::{str::FromStr, time::Duration};

/// How many connections, and how long to wait for one.
#[derive(Debug, Clone, Copy)]
pub struct DbConfig {
    /// Most connections at a time.
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout: Duration,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self { max_connections: 16, acquire_timeout: Duration::from_secs(5) }
    }
}

/// One schema, through a bounded pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: MySqlPool,
}

impl Database {
    /// Connects to `url` (`mysql://user:password@host:port/schema`) at READ COMMITTED. Fails if the server does not
    /// answer within the acquire time-out.
    ///
    /// Without `ssl-mode` in the URL the connection is plain: over TLS a statement of more than one record stalls for
    /// tens of milliseconds, and a private link does not need it.
    pub async fn connect(url: &str, config: DbConfig) -> Result<Self, DbError> {
        let mut options = MySqlConnectOptions::from_str(url)?;
        if !url.contains("ssl-mode") {
            options = options.ssl_mode(MySqlSslMode::Disabled);
        }
        // The text of a statement holds what it writes, which is not for the logs. Units of work are measured by name.
        options = options.disable_statement_logging();
        let pool = MySqlPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                    Ok(())
                })
            })
            // A connection that comes back inside a transaction would swallow the next user's writes.
            .after_release(|connection, _| {
                let in_transaction = connection.is_in_transaction();
                Box::pin(async move { Ok(!in_transaction) })
            })
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// A connection for reading, or for a single statement that is its own transaction.
    pub async fn acquire(&self) -> Result<PoolConnection<MySql>, DbError> {
        Ok(self.pool.acquire().await?)
    }

    /// Whether the server answers now.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.pool.execute("SELECT 1").await?;
        Ok(())
    }

    /// Closes every connection, once what is under way has ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn pool(&self) -> &MySqlPool {
        &self.pool
    }
}
