//! Which relay sends which partitions: leases in the database, by the database's clock.
//!
//! Two relays never hold one partition at a time, except for one that stalls past its lease; what that one sends late
//! are repeats of what the next one sends, which consumers drop.

use sqlx::{MySql, MySqlConnection, QueryBuilder};
use stampede_db::DbError;

/// Time after which a relay that is not heard of has lost its partitions.
pub const TERM_US: i64 = 3_000_000;

/// The database's clock in microseconds, so that relays on machines with different clocks agree.
const NOW_US: &str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

/// Says that this relay is alive, and extends what it holds.
pub async fn renew(connection: &mut MySqlConnection, owner: &str) -> Result<(), DbError> {
    let mut hello = QueryBuilder::<MySql>::new("INSERT INTO outbox_relays (owner, expires_us) VALUES (");
    hello
        .push_bind(owner)
        .push(format!(", {NOW_US} + {TERM_US}) ON DUPLICATE KEY UPDATE expires_us = VALUES(expires_us)"));
    hello.build().execute(&mut *connection).await?;

    // A lease that ran out is not extended: somebody else may be about to take it.
    let mut extend = QueryBuilder::<MySql>::new(format!(
        "UPDATE outbox_leases SET expires_us = {NOW_US} + {TERM_US} WHERE owner = "
    ));
    extend.push_bind(owner).push(format!(" AND expires_us > {NOW_US}")).build().execute(&mut *connection).await?;

    let mut forget =
        QueryBuilder::<MySql>::new(format!("DELETE FROM outbox_relays WHERE expires_us < {NOW_US} - {TERM_US}"));
    forget.build().execute(connection).await?;
    Ok(())
}

/// The partitions that this relay holds now.
pub async fn held(connection: &mut MySqlConnection, owner: &str) -> Result<Vec<u16>, DbError> {
    let mut select = QueryBuilder::<MySql>::new("SELECT partition_no FROM outbox_leases WHERE owner = ");
    select.push_bind(owner).push(format!(" AND expires_us > {NOW_US} ORDER BY partition_no"));
    Ok(select.build_query_scalar().fetch_all(connection).await?)
}

/// How many relays are alive, this one included.
pub async fn relays_alive(connection: &mut MySqlConnection) -> Result<i64, DbError> {
    let mut select =
        QueryBuilder::<MySql>::new(format!("SELECT COUNT(*) FROM outbox_relays WHERE expires_us > {NOW_US}"));
    Ok(select.build_query_scalar().fetch_one(connection).await?)
}

/// Takes up to `wanted` partitions that nobody holds.
pub async fn take(connection: &mut MySqlConnection, owner: &str, wanted: u32) -> Result<u64, DbError> {
    let mut update = QueryBuilder::<MySql>::new("UPDATE outbox_leases SET owner = ");
    update
        .push_bind(owner)
        .push(format!(", epoch = epoch + 1, expires_us = {NOW_US} + {TERM_US} WHERE expires_us <= {NOW_US} ORDER BY partition_no LIMIT "))
        .push_bind(wanted);
    Ok(update.build().execute(connection).await?.rows_affected())
}

/// Gives partitions back, so that somebody else can take them at once.
pub async fn give_back(connection: &mut MySqlConnection, owner: &str, partitions: &[u16]) -> Result<(), DbError> {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut update = QueryBuilder::<MySql>::new("UPDATE outbox_leases SET expires_us = 0 WHERE owner = ");
    update.push_bind(owner).push(" AND partition_no IN (");
    let mut list = update.separated(", ");
    for partition in partitions {
        list.push_bind(partition);
    }
    update.push(")").build().execute(connection).await?;
    Ok(())
}

/// Says that this relay is gone.
pub async fn leave(connection: &mut MySqlConnection, owner: &str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM outbox_relays WHERE owner = ?").bind(owner).execute(connection).await?;
    Ok(())
}
