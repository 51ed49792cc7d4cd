//! Which relay sends which partitions: leases in the database, by the database's clock.
//!
//! Two relays never hold one partition at a time, unless one stalls past the end of its lease. What that one sends late
//! are duplicates of what the next one sends, and consumers drop duplicates.

use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};

/// Term of a lease: a relay that does not renew for so long has lost its partitions.
pub const TERM_US: i64 = 3_000_000;

/// The database's clock in microseconds, so that relays on machines with different clocks agree.
const NOW_US: &str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

/// Registers this relay as alive, and renews its leases.
pub async fn renew(conn: &mut MySqlConnection, owner: &str) -> Result<(), DbError> {
    let mut hello = Statement::new("INSERT INTO outbox_relays (owner, expires_us) VALUES (");
    hello.push_bind(owner).push(", ").push(NOW_US).push(" + ").push_bind(TERM_US);
    hello.push(") ON DUPLICATE KEY UPDATE expires_us = VALUES(expires_us)").execute(conn).await?;

    // An expired lease is not renewed: another relay may be about to take it.
    let mut extend = Statement::concat(["UPDATE outbox_leases SET expires_us = ", NOW_US, " + "]);
    extend.push_bind(TERM_US).push(" WHERE owner = ").push_bind(owner);
    extend.push(" AND expires_us > ").push(NOW_US).execute(conn).await?;

    let mut forget = Statement::concat(["DELETE FROM outbox_relays WHERE expires_us < ", NOW_US, " - "]);
    forget.push_bind(TERM_US).execute(conn).await?;
    Ok(())
}

/// Returns the partitions that this relay holds now.
pub async fn held(conn: &mut MySqlConnection, owner: &str) -> Result<Vec<u16>, DbError> {
    let mut select = Statement::new("SELECT partition_no FROM outbox_leases WHERE owner = ");
    select.push_bind(owner).push(" AND expires_us > ").push(NOW_US).push(" ORDER BY partition_no");
    let rows: Vec<(u16,)> = select.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(partition,)| partition).collect())
}

/// Returns how many relays are alive, this one included.
pub async fn relays_alive(conn: &mut MySqlConnection) -> Result<i64, DbError> {
    let mut select = Statement::concat(["SELECT COUNT(*) FROM outbox_relays WHERE expires_us > ", NOW_US]);
    let rows: Vec<(i64,)> = select.fetch_all(conn).await?;
    Ok(rows.first().map_or(0, |(alive,)| *alive))
}

/// Takes up to `wanted` partitions whose lease has expired. Returns how many it took.
pub async fn take(conn: &mut MySqlConnection, owner: &str, wanted: u32) -> Result<u64, DbError> {
    let mut update = Statement::new("UPDATE outbox_leases SET owner = ");
    update.push_bind(owner).push(", epoch = epoch + 1, expires_us = ").push(NOW_US).push(" + ").push_bind(TERM_US);
    update.push(" WHERE expires_us <= ").push(NOW_US).push(" ORDER BY partition_no LIMIT ").push_bind(wanted);
    update.execute(conn).await
}

/// Ends the leases of partitions, so that another relay can take them at once.
pub async fn give_back(conn: &mut MySqlConnection, owner: &str, partitions: &[u16]) -> Result<(), DbError> {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut update = Statement::new("UPDATE outbox_leases SET expires_us = 0 WHERE owner = ");
    update.push_bind(owner).push(" AND partition_no IN ").push_list(partitions);
    update.execute(conn).await?;
    Ok(())
}

/// Removes this relay from those that are alive.
pub async fn leave(conn: &mut MySqlConnection, owner: &str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM outbox_relays WHERE owner = ?").bind(owner).execute(conn).await?;
    Ok(())
}
