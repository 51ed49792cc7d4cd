//! The pool of connections of one service to its one schema.

use crate::{
    Conn, DbError, WorkError,
    kept_alive::KeptAlive,
    pool::{self, Pool},
};
use sqlx::{
    ConnectOptions, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlSslMode},
    raw_sql,
};
use std::{future::Future, str::FromStr, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Longest wait for a ping that tells whether work has failed for a lost connection.
const PROBE_TIMEOUT: Duration = Duration::from_millis(100);

/// How many connections, and how long to wait for one and for its answers.
#[derive(Debug, Clone, Copy)]
pub struct DbConfig {
    /// Most connections at a time.
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout: Duration,
    /// Longest time of one try of a unit of work, and of what is bounded by [`Database::in_time`].
    pub work_timeout: Duration,
    /// How long a connection may be silent until the server ends it and rolls back, in whole seconds. Longer than the
    /// work time-out: nobody who is well is silent for so long in a transaction.
    pub idle_timeout: Duration,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(5),
            work_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(8),
        }
    }
}

impl DbConfig {
    /// How long the server lets a statement wait for a lock, in seconds: well below the work time-out, since MySQL may
    /// take a second longer. After a time-out here the server would go on waiting, with all the locks that it holds.
    fn lock_wait_s(&self) -> u64 {
        (self.work_timeout.as_secs() / 2).max(1)
    }

    /// The settings of a session, by names that both servers have.
    ///
    /// A process that stands still, or whose machine or network is gone without a word, says nothing more, and keeps
    /// the rows that it has locked for as long as the server waits: eight hours, unless it is told otherwise. MySQL has
    /// one setting for a client that is silent between two statements, in a transaction or not. The other two are for
    /// one that stops in the middle of a statement, or takes no more of an answer.
    pub(crate) fn session(&self) -> String {
        let (lock_wait_s, idle_s) = (self.lock_wait_s(), self.idle_timeout.as_secs().max(1));
        format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET SESSION innodb_lock_wait_timeout = {lock_wait_s}, wait_timeout = {idle_s}, \
             net_read_timeout = {idle_s}, net_write_timeout = {idle_s}"
        )
    }

    /// How long a connection may be idle until it is validated before its next use. In a process that runs none is idle
    /// for so long: the keep-alive pings it.
    pub(crate) fn validate_after(&self) -> Duration {
        self.idle_timeout / 2
    }
}

/// One schema, through a bounded pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    config: DbConfig,
    _kept_alive: Arc<KeptAlive>,
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
        let pool = Pool::new(options, config);
        pool::release(pool.get().await?);
        let kept_alive = Arc::new(KeptAlive::spawn(pool.clone(), config.idle_timeout / 3, config.work_timeout));
        Ok(Self { pool, config, _kept_alive: kept_alive })
    }

    /// Returns a connection for reading, or for a single statement that is its own transaction. Only the wait for it is
    /// bounded, and it is validated before its next use: [`Database::run`] bounds the work too, and costs no more round
    /// trips than its statements.
    pub async fn acquire(&self) -> Result<Conn, DbError> {
        Ok(Conn::new(self.pool.get().await?))
    }

    /// Opens a connection beside those of the pool, with the same settings, to the server that the URL leads to now:
    /// one of the pool may be to the server that it led to before. Fails if the server does not answer within the
    /// acquire time-out.
    pub async fn open_apart(&self) -> Result<MySqlConnection, DbError> {
        let after = self.config.acquire_timeout;
        match timeout(after, self.pool.connector().connect()).await {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(DbError::TimedOut { name: "open_connection", after }),
        }
    }

    /// Runs `work`, which uses connections of this pool, until the work time-out. The connection of cancelled work is
    /// validated before its next use, and replaced if that fails.
    pub async fn in_time<T, E: From<DbError>>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let in_time = timeout(self.config.work_timeout, work).await;
        in_time.unwrap_or_else(|_| Err(self.timed_out(name).into()))
    }

    /// Runs `work` on a connection without a transaction, until the work time-out: reads, or one statement. After `Ok`
    /// the connection is reused without validation, so the work must not cancel a statement and then succeed. The
    /// connection stays checked out until the work ends, even if the work drops it before: a nested `run` needs a
    /// second one.
    pub async fn run<T, E, F, Fut>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: WorkError,
        F: FnOnce(Conn) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let checked_out = async {
            let (conn, slot) = Conn::with_return_slot(self.pool.get().await?);
            let outcome = work(conn).await;
            self.note_read_only(&outcome);
            if outcome.is_ok() {
                slot.release();
            } else if slot.proves_lost(PROBE_TIMEOUT).await {
                self.note_lost();
            }
            outcome
        };
        // On the heap: it would make the future of every caller larger, and each time-out around it once more.
        self.in_time(name, Box::pin(checked_out)).await
    }

    /// Fails if the server does not answer now.
    pub async fn ping(&self) -> Result<(), DbError> {
        let answer = self
            .run("ping", |mut conn| async move { Ok::<_, DbError>(raw_sql("SELECT 1").execute(&mut *conn).await?) });
        answer.await.map(drop)
    }

    /// Returns how long a connection outside of the pool may be idle: after that the server may have ended it.
    pub fn max_idle(&self) -> Duration {
        self.config.validate_after()
    }

    /// Longest time of one try of a unit of work: whoever writes for longer loses the connection, and with it what was
    /// written.
    pub fn work_timeout(&self) -> Duration {
        self.config.work_timeout
    }

    /// Has the idle connections validated before their next use, after one was found to be lost.
    pub(crate) fn note_lost(&self) {
        self.pool.connector().note_lost();
    }

    /// Has the connections replaced that were opened before now, if the server refuses to write.
    pub(crate) fn note_read_only<T, E: WorkError>(&self, outcome: &Result<T, E>) {
        if outcome.as_ref().err().and_then(E::as_db_error).is_some_and(DbError::is_read_only) {
            self.pool.connector().note_read_only();
        }
    }

    pub(crate) fn timed_out(&self, name: &'static str) -> DbError {
        DbError::TimedOut { name, after: self.config.work_timeout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_process_holds_others_up_for_ten_seconds_at_most() {
        let config = DbConfig::default();
        let (silence, lock_wait) = (config.idle_timeout, Duration::from_secs(config.lock_wait_s()));
        assert!(silence <= Duration::from_secs(8), "{silence:?}");
        assert!(silence + lock_wait <= Duration::from_secs(10), "{silence:?} and {lock_wait:?}");
        assert!(silence > config.work_timeout, "somebody who is well may be silent for as long as the work lasts");
    }
}
