//! A connection of the relay's own.
//!
//! It is none of the pool, so a flood of calls does not keep the relay from renewing its leases. A process has two of
//! them, beside those that its pool may have. And whoever gets a new one knows that it may be to another server, or to
//! one that was restarted and has lost its last commits: what was read over the connection before counts for nothing
//! then. It is opened when it is asked for: one that the pool has had for long may be to the primary of before.

use sqlx::{Connection, MySqlConnection};
use stampede_db::{Database, DbError};
use tokio::time::Instant;

/// One connection at a time, beside those of the pool.
pub struct Session {
    db: Database,
    /// The connection, and when it was last used.
    conn: Option<(MySqlConnection, Instant)>,
}

impl Session {
    /// Without a connection so far.
    pub fn new(db: Database) -> Self {
        Self { db, conn: None }
    }

    /// Takes the connection out, and returns with it whether it is a new one. Whoever uses it without a failure hands
    /// it back; otherwise the next one is new. So it is after the relay has stood still, or has had nothing to do: the
    /// server may have ended the connection.
    pub async fn open(&mut self) -> Result<(MySqlConnection, bool), DbError> {
        if let Some((conn, used)) = self.conn.take()
            && used.elapsed() < self.db.max_idle()
        {
            return Ok((conn, false));
        }
        Ok((self.db.open_apart().await?, true))
    }

    /// Hands the connection back.
    pub fn keep(&mut self, conn: MySqlConnection) {
        self.conn = Some((conn, Instant::now()));
    }

    /// Gives the connection up.
    pub fn forget(&mut self) {
        self.conn = None;
    }

    /// Says goodbye to the server.
    pub async fn close(&mut self) {
        if let Some((conn, _)) = self.conn.take() {
            let goodbye = async { Ok::<_, DbError>(conn.close().await?) };
            // The server notices anyway.
            let _ = self.db.in_time("close_session", goodbye).await;
        }
    }
}
