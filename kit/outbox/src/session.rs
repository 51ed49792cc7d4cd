//! A connection outside of the pool.
//!
//! A full pool does not stop the relay from renewing its leases. A process has two such connections. The caller learns
//! when a connection is new: it may lead to another server, or to one that was restarted and has lost its last commits,
//! so state that was read over the old connection is invalid. It is opened on demand: a connection of the pool may lead
//! to the old primary after a failover.

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
    /// Returns a session without a connection.
    pub fn new(db: Database) -> Self {
        Self { db, conn: None }
    }

    /// Takes the connection out, and returns whether it is new. The caller returns it by [`Session::keep`] after
    /// success; otherwise the next one is new. So is one after a long pause: the server may have closed the old one.
    pub async fn open(&mut self) -> Result<(MySqlConnection, bool), DbError> {
        if let Some((conn, used)) = self.conn.take()
            && used.elapsed() < self.db.max_idle()
        {
            return Ok((conn, false));
        }
        Ok((self.db.open_apart().await?, true))
    }

    /// Keeps the connection for the next use.
    pub fn keep(&mut self, conn: MySqlConnection) {
        self.conn = Some((conn, Instant::now()));
    }

    /// Drops the connection.
    pub fn forget(&mut self) {
        self.conn = None;
    }

    /// Closes the connection by COM_QUIT.
    pub async fn close(&mut self) {
        if let Some((conn, _)) = self.conn.take() {
            let closed = async { Ok::<_, DbError>(conn.close().await?) };
            // After a failure the server notices that the socket was closed.
            let _ = self.db.in_time("close_session", closed).await;
        }
    }
}
