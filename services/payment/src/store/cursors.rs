//! The table `provider_cursors`: the cursors of the lists of the provider.

use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::Timestamp;

/// The list of refunds.
pub const REFUNDS: &str = "refunds";

/// Returns the cursor, the id of the last entry that was read; `None` before the first.
pub async fn read(conn: &mut MySqlConnection, list: &'static str) -> Result<Option<String>, DbError> {
    let after = sqlx::query_scalar("SELECT after_id FROM provider_cursors WHERE list = ?");
    Ok(after.bind(list).fetch_optional(conn).await?)
}

pub async fn save(conn: &mut MySqlConnection, list: &'static str, after: &str, now: Timestamp) -> Result<(), DbError> {
    let save = sqlx::query(
        "INSERT INTO provider_cursors (list, after_id, updated_us) VALUES (?, ?, ?) \
         ON DUPLICATE KEY UPDATE after_id = VALUES(after_id), updated_us = VALUES(updated_us)",
    );
    save.bind(list).bind(after).bind(now.micros()).execute(conn).await?;
    Ok(())
}

/// Deletes the cursor: the list is read from its start again.
pub async fn forget(conn: &mut MySqlConnection, list: &'static str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM provider_cursors WHERE list = ?").bind(list).execute(conn).await?;
    Ok(())
}
