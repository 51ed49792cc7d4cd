//! The clock of the database, by which leases hold.

use crate::{Database, DbError, Statement};
use stampede_vocab::Timestamp;

/// The time in microseconds since the epoch.
const NOW_US: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

impl Database {
    /// Returns the time by the clock of the server.
    pub async fn time(&self) -> Result<Timestamp, DbError> {
        self.run("read_clock", |mut conn| async move {
            let rows: Vec<(i64,)> = Statement::new(NOW_US).fetch_all(&mut conn).await?;
            let now = rows.first().map(|(micros,)| Timestamp::from_micros(*micros));
            now.ok_or_else(|| DbError::inconsistent("the server does not tell the time"))
        })
        .await
    }
}
