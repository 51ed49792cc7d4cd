//! Named units of work: one transaction each, on a task of their own, retried after a deadlock or on a connection that
//! was lost before, and measured.

use crate::{Answers, Conn, Database, DbError, Statements};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use sqlx::{MySqlConnection, raw_sql};
use stampede_vocab::backoff_from;
use std::{future::Future, pin::Pin, sync::LazyLock, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

/// The future of a unit of work, which borrows the transaction's connection.
pub type Work<'t, T, E = DbError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 't>>;

/// The error of a unit of work: a failure of the database, or a reason of its own to roll back.
pub trait WorkError: From<DbError> + Send + 'static {
    /// The failure of the database, if it is one.
    fn as_db_error(&self) -> Option<&DbError>;
}

impl WorkError for DbError {
    fn as_db_error(&self) -> Option<&DbError> {
        Some(self)
    }
}

/// Attempts of a transaction.
const ATTEMPTS: u32 = 5;
/// Before the second try: the other side of a deadlock commits within milliseconds.
const FIRST_WAIT: Duration = Duration::from_millis(2);

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("stampede.db")
        .f64_histogram("stampede_transaction_duration_seconds")
        .with_description("Time of a unit of work from its start to its commit, with every attempt")
        .with_boundaries(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0])
        .build()
});

impl Database {
    /// Runs `work` in one transaction and commits if it yields `Ok`. After a deadlock or a lock time-out it is run
    /// again from the start, five times at most, so it must have no effect outside the transaction. The same if the
    /// connection turns out to be lost as the transaction begins: nothing can have been committed by then.
    ///
    /// The work runs on a task of its own, so a caller that goes away does not cancel it. An attempt that takes longer
    /// than the work time-out fails as [`DbError::TimedOut`], and its connection is closed.
    pub async fn transact<T, F>(&self, name: &'static str, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut MySqlConnection) -> Work<'t, T> + Send + Sync + 'static,
    {
        self.transact_with(name, work).await
    }

    /// [`Database::transact`] for work that has reasons of its own to roll back.
    pub async fn transact_with<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WorkError,
        F: for<'t> Fn(&'t mut MySqlConnection) -> Work<'t, T, E> + Send + Sync + 'static,
    {
        self.transact_after(name, Statements::new(), move |conn, _| work(conn)).await
    }

    /// [`Database::transact_with`] for work of which the first statements are known beforehand: `opening` goes out in
    /// one round trip with the BEGIN, unless it is very long, and `work` gets the answers. Where `opening` fails,
    /// `work` is not run. Each try begins with `opening`.
    pub async fn transact_after<T, E, F>(&self, name: &'static str, opening: Statements, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WorkError,
        F: for<'t> Fn(&'t mut MySqlConnection, Answers) -> Work<'t, T, E> + Send + Sync + 'static,
    {
        let db = self.clone();
        // The caller's own span goes along: messages that the work writes belong to the caller's trace.
        let task = tokio::spawn(async move { db.until_committed(name, &opening, &work).await }.in_current_span());
        task.await.map_err(|ended| if ended.is_panic() { DbError::Panicked(name) } else { DbError::BrokenOff(name) })?
    }

    async fn until_committed<T, E, F>(&self, name: &'static str, opening: &Statements, work: &F) -> Result<T, E>
    where
        E: WorkError,
        F: for<'t> Fn(&'t mut MySqlConnection, Answers) -> Work<'t, T, E>,
    {
        let started = Instant::now();
        let mut attempt = 1;
        let outcome = loop {
            let mut is_lost = false;
            let outcome = self.once(name, opening, work, &mut is_lost).await;
            if is_lost {
                self.note_lost();
            }
            self.note_read_only(&outcome);
            let deadlock = outcome.as_ref().err().and_then(E::as_db_error).is_some_and(DbError::is_deadlock);
            let may_succeed = deadlock || is_lost;
            if !may_succeed || attempt == ATTEMPTS {
                break outcome;
            }
            tracing::debug!(db.transaction = name, db.attempt = attempt, db.is_lost = is_lost, "trying again");
            sleep(backoff_from(FIRST_WAIT, attempt - 1)).await;
            attempt += 1;
        };
        // A rollback that the work itself decides on is not a failure of the database.
        let failed = outcome.as_ref().err().is_some_and(|error| error.as_db_error().is_some());
        let labels = [KeyValue::new("transaction", name), KeyValue::new("ok", !failed)];
        DURATION.record(started.elapsed().as_secs_f64(), &labels);
        outcome
    }

    /// Sets `is_lost` if the connection turns out to be lost before `work` is run.
    async fn once<T, E, F>(
        &self,
        name: &'static str,
        opening: &Statements,
        work: &F,
        is_lost: &mut bool,
    ) -> Result<T, E>
    where
        E: WorkError,
        F: for<'t> Fn(&'t mut MySqlConnection, Answers) -> Work<'t, T, E>,
    {
        let connection = Begun(Some(self.acquire().await?));
        let in_time = timeout(self.work_timeout(), in_transaction(connection, opening, work, is_lost)).await;
        in_time.unwrap_or_else(|_| Err(self.timed_out(name).into()))
    }
}

async fn in_transaction<T, E, F>(
    mut connection: Begun,
    opening: &Statements,
    work: &F,
    is_lost: &mut bool,
) -> Result<T, E>
where
    E: WorkError,
    F: for<'t> Fn(&'t mut MySqlConnection, Answers) -> Work<'t, T, E>,
{
    let opened = opening.begin(connection.get()).await;
    let outcome = match opened {
        Ok(answers) => work(connection.get(), answers).await,
        Err(error) => {
            *is_lost = error.is_lost_connection();
            Err(error.into())
        }
    };
    match outcome {
        Ok(value) => {
            connection.end("COMMIT").await?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one to return.
            let _ = connection.end("ROLLBACK").await;
            Err(error)
        }
    }
}

/// A connection that may be inside a transaction. In the pool the writes of its next user would be lost with that
/// transaction, and sqlx does not know of a BEGIN that is sent together with other statements. So it is closed unless
/// the transaction has ended: after a panic, a time-out, or a COMMIT or ROLLBACK that fails. The server rolls back when
/// a connection ends. No ROLLBACK is sent: a half-open connection would not answer it.
struct Begun(Option<Conn>);

impl Begun {
    fn get(&mut self) -> &mut MySqlConnection {
        self.0.as_mut().expect("it is taken out when its transaction has ended, and not used after that")
    }

    /// Ends the transaction, and releases the connection as clean, since the server has answered.
    async fn end(mut self, how: &'static str) -> Result<(), DbError> {
        raw_sql(how).execute(self.get()).await?;
        if let Some(conn) = self.0.take() {
            conn.release();
        }
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.close();
        }
    }
}
