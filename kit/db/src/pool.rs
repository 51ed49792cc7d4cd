//! The pool: which connections are handed out as they are, and which are asked first.
//!
//! Asking is a round trip, so only where there is doubt: somebody may have left the connection in the middle of a
//! statement or of a transaction, or the server may have ended it. Whoever has a connection vouches for it as it is
//! given back, or else there is doubt.

use crate::{DbConfig, DbError};
use deadpool::managed::{self, Manager, Metrics, Object, PoolError, QueueMode, RecycleResult, Timeouts};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, mysql::MySqlConnectOptions, raw_sql};
use stampede_vocab::backoff_within;
use std::{fmt, io, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Longest life of a connection, less up to a tenth: after a switch-over it may be to the primary of before, which closes
/// nothing.
const LIFETIME: Duration = Duration::from_secs(1_800);
/// Before a server that refuses connections is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A connection that somebody has. It is back in the pool once it is dropped.
pub type Pooled = Object<Opener>;

/// A bounded number of connections. Cheap to clone.
#[derive(Clone)]
pub struct Pool(managed::Pool<Opener>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the options, which have the password.
        f.debug_struct("Pool").field("status", &self.0.status()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Without a connection so far.
    pub fn new(options: MySqlConnectOptions, config: DbConfig) -> Self {
        let pool = managed::Pool::builder(Opener { options, config })
            .max_size(config.max_connections as usize)
            // The one that was unused the longest is the next. So all are in use now and then, which keeps them alive,
            // and those that nobody uses can be pinged in turn.
            .queue_mode(QueueMode::Fifo)
            .build();
        Self(pool.expect("only the pool's own time-outs need a runtime, and it has none"))
    }

    /// Hands out a connection, in the order in which it is asked for. Waits for one, asks it where there is doubt, and
    /// opens a new one where it must, all within the acquire time-out.
    pub async fn get(&self) -> Result<Pooled, DbError> {
        self.get_after(None).await
    }

    /// [`Pool::get`], but waits for none that is in use. May open one, if the last unused one has just been taken.
    pub async fn get_unused(&self) -> Result<Pooled, DbError> {
        self.get_after(Some(Duration::ZERO)).await
    }

    async fn get_after(&self, wait: Option<Duration>) -> Result<Pooled, DbError> {
        let timeouts = Timeouts { wait, ..Timeouts::new() };
        // One bound for all, since the caller has waited for as long whatever it was for.
        let got = timeout(self.opener().config.acquire_timeout, self.0.timeout_get(&timeouts)).await;
        let error = match got {
            Ok(Ok(pooled)) => return Ok(pooled),
            Ok(Err(PoolError::Backend(error))) => error,
            Ok(Err(PoolError::Closed)) => sqlx::Error::PoolClosed,
            // It has no hooks that could fail.
            Ok(Err(_)) | Err(_) => sqlx::Error::PoolTimedOut,
        };
        Err(error.into())
    }

    /// How many connections nobody uses, about.
    pub fn unused(&self) -> usize {
        self.0.status().available
    }

    /// What opens its connections.
    pub fn opener(&self) -> &Opener {
        self.0.manager()
    }
}

/// Gives a connection back whose last statement was answered, and whose transaction has ended: the next one may use it
/// as it is. What is left of the answer, as behind a row that was fetched alone, sqlx reads before the next statement.
pub fn give_back(mut pooled: Pooled) {
    pooled.vouch();
    drop(pooled);
}

/// Takes a connection out of the pool and closes it.
pub fn close(pooled: Pooled) {
    // Nor is the server asked to end it: it may not answer.
    drop(Object::take(pooled));
}

/// Opens connections, and asks those that are in doubt.
pub struct Opener {
    options: MySqlConnectOptions,
    config: DbConfig,
}

impl Opener {
    /// Opens a connection with the settings of a session, by one try.
    pub async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut conn = Box::pin(self.options.connect()).await?;
        raw_sql(AssertSqlSafe(self.config.session())).execute(&mut conn).await?;
        Ok(conn)
    }

    /// Opens a connection for the pool. A server that refuses it may be about to start, so it is tried again, for as
    /// long as the caller waits.
    async fn open(&self) -> Result<Link, sqlx::Error> {
        let mut tries = 0;
        loop {
            let opened = self.connect().await;
            if !opened.as_ref().is_err_and(is_refused) {
                return opened.map(Link::new);
            }
            drop(opened);
            sleep(backoff_within(FIRST_PAUSE, self.config.acquire_timeout / 5, tries)).await;
            tries += 1;
        }
    }
}

impl Manager for Opener {
    type Type = Link;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Link, sqlx::Error> {
        Box::pin(self.open()).await
    }

    /// Makes sure that the next one may use the connection. In place of one that does not answer a new one is opened
    /// here: the others that are unused may not answer either, and to try each would take longer than anybody waits.
    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<sqlx::Error> {
        let needs_asking = link.needs_asking(self.config.untested());
        let is_well = !needs_asking || Box::pin(link.settles(self.config.acquire_timeout / 2)).await;
        if !is_well || Instant::now() >= link.old_at {
            tracing::debug!(db.is_well = is_well, "a connection that does not answer, or is old, is replaced");
            *link = Box::pin(self.open()).await?;
        }
        link.is_doubtful = true;
        Ok(())
    }
}

/// One connection, and what is known of it.
pub struct Link {
    /// The connection.
    pub conn: MySqlConnection,
    /// Whether it may be in the middle of a statement or of a transaction. So it is while somebody has it, and after
    /// that unless they vouch for it: whoever is cut off cannot say where.
    is_doubtful: bool,
    /// When the server was last known to be at the other end.
    heard: Instant,
    /// When another one takes its place.
    old_at: Instant,
}

impl Link {
    fn new(conn: MySqlConnection) -> Self {
        let now = Instant::now();
        // Spread, so that those that were opened together are not all replaced together.
        let old_at = now + LIFETIME.mul_f64(rand::random_range(0.9..1.0));
        Self { conn, is_doubtful: true, heard: now, old_at }
    }

    /// Notes that all was answered. What sqlx knows to be left of a transaction is in doubt all the same.
    fn vouch(&mut self) {
        self.is_doubtful = self.conn.is_in_transaction() || self.conn.should_flush();
        self.heard = Instant::now();
    }

    fn needs_asking(&self, untested: Duration) -> bool {
        self.is_doubtful || self.heard.elapsed() >= untested
    }

    /// Returns whether the server answers in time. One that does not is of no more use.
    pub async fn answers(&mut self, within: Duration) -> bool {
        timeout(within, self.conn.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Returns whether the next one may use it: the server has answered all that was asked before, and has rolled back
    /// what was left open. sqlx knows of no BEGIN but its own, so it is rolled back whenever there is doubt.
    async fn settles(&mut self, within: Duration) -> bool {
        let settled = async {
            // First, since it reads what is still on its way and takes nothing else for its answer: with a statement
            // that was cut as it was prepared, the answer to a query would be read wrongly.
            while let Err(error) = self.conn.ping().await {
                // That is the answer to what was cut off, such as that a lock was not to be had. The next is behind it.
                if !matches!(error, sqlx::Error::Database(_)) {
                    return Err(error);
                }
            }
            if self.is_doubtful {
                raw_sql("ROLLBACK").execute(&mut self.conn).await?;
            }
            Ok::<_, sqlx::Error>(())
        };
        timeout(within, settled).await.is_ok_and(|settled| settled.is_ok())
    }
}

fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
