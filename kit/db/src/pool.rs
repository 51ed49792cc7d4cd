//! The pool: reuses clean connections as they are, and validates the others before their next use.
//!
//! Validation costs round trips. So a connection that is released as clean is not validated, unless it was idle for
//! long enough that the server may have ended it, or another one was found to be lost meanwhile. Any other is dirty: it
//! may be in the middle of a statement or of a transaction. One that may lead to a server that has refused to write is
//! replaced.

use crate::{DbConfig, DbError, read_only::ReadOnlyMoment};
use deadpool::managed::{self, Manager, Metrics, Object, PoolError, QueueMode, RecycleResult, Timeouts};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, mysql::MySqlConnectOptions, raw_sql};
use stampede_vocab::backoff_within;
use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Longest lifetime of a connection, less up to a tenth. After a failover it may still lead to the old primary, which
/// closes nothing, and nobody finds out who only reads.
const MAX_LIFETIME: Duration = Duration::from_secs(1_800);
/// First back-off after a server has refused a connection.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);

/// A connection that is checked out. Returns to the pool when it is dropped: dirty, unless it was [released](release).
pub type Pooled = Object<Connector>;

/// A bounded number of connections. Cheap to clone.
#[derive(Clone)]
pub struct Pool(managed::Pool<Connector>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the options, which contain the password.
        f.debug_struct("Pool").field("status", &self.0.status()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Returns an empty pool.
    pub fn new(options: MySqlConnectOptions, config: DbConfig) -> Self {
        let pool = managed::Pool::builder(Connector::new(options, config))
            .max_size(config.max_connections as usize)
            // First in, first out: every connection is used now and then, which keeps it alive, and the keep-alive can
            // ping idle ones in turn.
            .queue_mode(QueueMode::Fifo)
            .build();
        Self(pool.expect("only the pool's own time-outs need a runtime, and it has none"))
    }

    /// Returns a connection. Callers that wait are served in their order. Waiting, validating and connecting all
    /// together take at most the acquire time-out.
    pub async fn get(&self) -> Result<Pooled, DbError> {
        self.get_after(None).await
    }

    /// [`Pool::get`], but does not wait for a connection that is in use. May open one, if the last idle one was taken
    /// just now.
    pub async fn get_idle(&self) -> Result<Pooled, DbError> {
        self.get_after(Some(Duration::ZERO)).await
    }

    async fn get_after(&self, wait: Option<Duration>) -> Result<Pooled, DbError> {
        let timeouts = Timeouts { wait, ..Timeouts::new() };
        // One time-out for all phases: deadpool's own would add up.
        let got = timeout(self.connector().config.acquire_timeout, self.0.timeout_get(&timeouts)).await;
        let error = match got {
            Ok(Ok(pooled)) => return Ok(pooled),
            Ok(Err(PoolError::Backend(error))) => error,
            Ok(Err(PoolError::Closed)) => sqlx::Error::PoolClosed,
            // The pool has no hooks that could fail.
            Ok(Err(_)) | Err(_) => sqlx::Error::PoolTimedOut,
        };
        Err(error.into())
    }

    /// Returns how many connections are idle, approximately.
    pub fn idle(&self) -> usize {
        self.0.status().available
    }

    /// Returns what opens the connections of the pool.
    pub fn connector(&self) -> &Connector {
        self.0.manager()
    }
}

/// Returns a clean connection to the pool: its last statement was answered, and its transaction has ended. It is reused
/// without validation. Unread rows of a result are no harm: sqlx reads them before the next statement.
pub fn release(mut pooled: Pooled) {
    pooled.mark_clean();
    drop(pooled);
}

/// Removes a connection from the pool and closes it.
pub fn close(pooled: Pooled) {
    // Closes the socket without COM_QUIT: the server may not answer.
    drop(Object::take(pooled));
}

/// Opens connections, and validates them before they are reused.
pub struct Connector {
    options: MySqlConnectOptions,
    config: DbConfig,
    /// When a connection was last found to be lost.
    lost_at: Mutex<Option<Instant>>,
    /// When the server was last found to be read-only.
    read_only: ReadOnlyMoment,
}

impl Connector {
    fn new(options: MySqlConnectOptions, config: DbConfig) -> Self {
        Self { options, config, lost_at: Mutex::default(), read_only: ReadOnlyMoment::default() }
    }

    /// Opens a connection with the session settings, in one attempt.
    pub async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut conn = Box::pin(self.options.connect()).await?;
        raw_sql(AssertSqlSafe(self.config.session())).execute(&mut conn).await?;
        Ok(conn)
    }

    /// Records that a connection was found to be lost. Those that were idle then are validated before their next use: a
    /// server that restarts, or an operator who kills sessions, ends all of them.
    pub fn note_lost(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Records that the server refuses to write: it may no longer be the primary. Each connection that was opened
    /// before is replaced at its next use, or by the keep-alive.
    pub fn note_read_only(&self) {
        self.read_only.record(Instant::now());
    }

    fn lost_at(&self) -> Option<Instant> {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection for the pool. Retries with back-off while the server refuses connections, for as long as the
    /// caller waits: the server may be about to start.
    async fn open(&self) -> Result<PoolConnection, sqlx::Error> {
        let mut attempt = 0;
        loop {
            let opened = self.connect().await;
            if !opened.as_ref().is_err_and(is_refused) {
                return opened.map(PoolConnection::new);
            }
            drop(opened);
            sleep(backoff_within(FIRST_BACKOFF, self.config.acquire_timeout / 5, attempt)).await;
            attempt += 1;
        }
    }
}

impl Manager for Connector {
    type Type = PoolConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PoolConnection, sqlx::Error> {
        Box::pin(self.open()).await
    }

    /// Validates a connection before it is reused. Replaces one that fails, has reached its maximum lifetime, or may
    /// lead to a read-only server, by a new one here: deadpool would try all other idle ones first, which may not
    /// answer either, and the caller would not wait for so long.
    async fn recycle(&self, conn: &mut PoolConnection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        let is_suspect = self.lost_at().is_some_and(|at| !conn.has_answered_since(at));
        let needs_validation = is_suspect || conn.needs_validation(self.config.validate_after());
        let is_read_only = self.read_only.affects(conn.opened_at);
        let is_valid =
            is_read_only || !needs_validation || Box::pin(conn.validate(self.config.acquire_timeout / 2)).await;
        if is_read_only || !is_valid || Instant::now() >= conn.expires_at {
            tracing::debug!(
                db.is_valid = is_valid,
                db.is_read_only = is_read_only,
                "replacing a connection that does not answer, is too old, or leads to a read-only server"
            );
            *conn = Box::pin(self.open()).await?;
        }
        conn.is_dirty = true;
        Ok(())
    }
}

/// One connection of the pool, and its state.
pub struct PoolConnection {
    /// The connection.
    pub conn: MySqlConnection,
    /// Whether it may be in the middle of a statement or of a transaction. Set while it is checked out, and cleared
    /// only by a clean release: cancelled work runs no code that could report where it stopped.
    is_dirty: bool,
    /// When it was opened.
    opened_at: Instant,
    /// When the server last answered.
    last_answer: Instant,
    /// When its lifetime ends.
    expires_at: Instant,
}

impl PoolConnection {
    fn new(conn: MySqlConnection) -> Self {
        let now = Instant::now();
        // With jitter, so that connections that were opened together are not all replaced together.
        let expires_at = now + MAX_LIFETIME.mul_f64(rand::random_range(0.9..1.0));
        Self { conn, is_dirty: true, opened_at: now, last_answer: now, expires_at }
    }

    /// Marks it as clean, unless sqlx knows of an open transaction or of bytes that are not sent yet.
    fn mark_clean(&mut self) {
        self.is_dirty = self.conn.is_in_transaction() || self.conn.should_flush();
        self.last_answer = Instant::now();
    }

    fn needs_validation(&self, idle_limit: Duration) -> bool {
        self.is_dirty || self.last_answer.elapsed() >= idle_limit
    }

    /// Returns whether the server has answered since then.
    pub fn has_answered_since(&self, at: Instant) -> bool {
        self.last_answer >= at
    }

    /// Pings the server. Returns whether it answers within this time.
    pub async fn ping(&mut self, within: Duration) -> bool {
        timeout(within, self.conn.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Drains the answers of earlier statements, and rolls back if the connection is dirty: sqlx does not know of a
    /// BEGIN that it has not sent itself. Returns whether that succeeds within this time.
    async fn validate(&mut self, within: Duration) -> bool {
        let validated = async {
            // The ping goes first, since it reads all pending answers and accepts only an OK as its own. A query would
            // take the rest of a statement that was cancelled while it was prepared for its own result.
            while let Err(error) = self.conn.ping().await {
                // An error of the server, such as a lock time-out, is the answer to the cancelled statement. The answer
                // to the ping comes after it.
                if !matches!(error, sqlx::Error::Database(_)) {
                    return Err(error);
                }
            }
            if self.is_dirty {
                raw_sql("ROLLBACK").execute(&mut self.conn).await?;
            }
            Ok::<_, sqlx::Error>(())
        };
        let is_valid = timeout(within, validated).await.is_ok_and(|outcome| outcome.is_ok());
        if is_valid {
            self.last_answer = Instant::now();
        }
        is_valid
    }
}

fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
