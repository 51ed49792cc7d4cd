//! Raises the floors (low-water marks) of an outbox before the first relay that keeps them.
//!
//! A relay of an earlier release lists its unsent messages, and raises no floor. So the floor of its outbox is 0, or
//! where this command raised it before, and the first relay that uses it would send all later messages again.

use anyhow::{Context, bail};
use sqlx::{Connection, MySqlConnection};
use stampede_db::DbError;
use std::time::Duration;
use tokio::time::sleep;

/// Longest wait for transactions that use the outbox. Writers of messages block meanwhile.
const LOCK_TIMEOUT: &str = "SET SESSION lock_wait_timeout = 3";
/// Attempts to lock it.
const ATTEMPTS: u32 = 5;
/// Longest pause before the next attempt, in which blocked writers go on.
const RETRY_AFTER: Duration = Duration::from_secs(4);

/// Waits for transactions that have written messages, and blocks new ones: an id that is not visible then is above the
/// floor.
const LOCK: &str = "LOCK TABLES outbox READ, outbox_unsent READ, outbox_relays READ, outbox_leases WRITE";

/// Names of relays that keep floors.
const KEEPERS: [&str; 2] = [
    "SELECT COUNT(*) FROM outbox_leases WHERE owner LIKE '2-%'",
    "SELECT COUNT(*) FROM outbox_relays WHERE owner LIKE '2-%'",
];

/// Raises the floors of the outbox at `url` to its sent messages, unless a release that keeps them has run on it.
pub async fn raise(url: &str) -> anyhow::Result<()> {
    let mut conn = MySqlConnection::connect(url).await?;
    if !has_keepers(&mut conn).await? {
        lock(&mut conn).await?;
        // If this fails, the lock ends with the connection.
        raise_locked(&mut conn).await?;
        sqlx::raw_sql("UNLOCK TABLES").execute(&mut conn).await?;
    }
    conn.close().await?;
    Ok(())
}

async fn lock(conn: &mut MySqlConnection) -> anyhow::Result<()> {
    sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *conn).await?;
    let mut tried = 1;
    loop {
        match sqlx::raw_sql(LOCK).execute(&mut *conn).await.map_err(DbError::from) {
            Err(error) if error.is_locked() && tried < ATTEMPTS => {
                tracing::info!(error.cause = %error, "the outbox is in use, trying again");
                sleep(RETRY_AFTER.mul_f64(rand::random_range(0.5..1.0))).await;
                tried += 1;
            }
            outcome => return outcome.map(drop).context("the outbox is in use: try again"),
        }
    }
}

async fn has_keepers(conn: &mut MySqlConnection) -> anyhow::Result<bool> {
    for sql in KEEPERS {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut *conn).await?;
        if count > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn raise_locked(conn: &mut MySqlConnection) -> anyhow::Result<()> {
    if has_keepers(conn).await? || has_unlisted(conn).await? {
        return Ok(());
    }
    let unsent: Option<u64> = sqlx::query_scalar("SELECT MIN(id) FROM outbox_unsent").fetch_one(&mut *conn).await?;
    let last: Option<u64> = sqlx::query_scalar("SELECT MAX(id) FROM outbox").fetch_one(&mut *conn).await?;
    let floor = unsent.map(|id| id.saturating_sub(1)).or(last).unwrap_or(0);
    let raise = sqlx::query("UPDATE outbox_leases SET floor_id = GREATEST(floor_id, ?)").bind(floor);
    raise.execute(conn).await?;
    Ok(())
}

/// Returns whether messages above a floor were never listed, sent or not: a release without a list assigns ids of its
/// own.
async fn has_unlisted(conn: &mut MySqlConnection) -> anyhow::Result<bool> {
    let floor: Option<u64> =
        sqlx::query_scalar("SELECT MIN(floor_id) FROM outbox_leases").fetch_one(&mut *conn).await?;
    let Some(floor) = floor else { bail!("outbox_leases is empty") };
    let unlisted: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE id > ? AND message_id IS NOT NULL")
        .bind(floor)
        .fetch_one(conn)
        .await?;
    Ok(unlisted > 0)
}
