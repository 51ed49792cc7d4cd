//! Leases of partitions in the database, by the clock of the database. The row of a lease also has the floor of its
//! partition: everything at or below it has been sent.
//!
//! Two relays never hold a partition at the same time, unless one stalls past the end of its lease. What that one still
//! sends are duplicates of what the next holder sends, and consumers are idempotent.

use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement, Statements};
use std::{collections::BTreeMap, time::Duration};

/// Term of a lease: a relay that does not renew for so long loses its partitions.
pub const TERM: Duration = Duration::from_secs(5);
/// The same in microseconds.
const TERM_US: i64 = 5_000_000;

/// Prefix of the names of relays. A relay without it is of the previous version, which sends only rows of a list that
/// is not written any more: its partitions are taken from it.
pub const NAME_PREFIX: &str = "2-";

/// The database's clock in microseconds, so that relays on machines with different clocks agree.
const NOW_US: &str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

/// A new epoch (fencing token), higher than all before on any server. A plain counter would repeat numbers on a server
/// that has lost its last commits.
const NEW_EPOCH: &str = "GREATEST(epoch + 1, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED))";

/// The floor of a partition in the database.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// Epoch of its lease.
    pub epoch: u64,
    /// Everything up to here has been sent.
    pub id: u64,
}

/// The leases as one relay sees them.
#[derive(Debug, Default)]
pub struct LeaseState {
    /// The partitions that it holds, and the epoch of each lease.
    pub mine: BTreeMap<u16, u64>,
    /// How many partitions are free to acquire.
    pub free: usize,
    /// How many relays share the partitions, itself included.
    pub relays: usize,
    /// Whether other replicas are alive, whose commits do not wake it.
    pub has_others: bool,
    /// Whether a relay has died without deregistering.
    pub has_expired_relays: bool,
}

/// Registers this relay as alive, renews its leases, writes their floors, and releases the partitions of `released`, in
/// one transaction. Returns the leases after it, in the same round trip.
///
/// Over a new connection the leases get new epochs. By them the sending checks that its own connection leads to the
/// same server.
pub async fn renew(
    conn: &mut MySqlConnection,
    owner: &str,
    floors: &BTreeMap<u16, u64>,
    released: &[u16],
    is_new: bool,
) -> Result<LeaseState, DbError> {
    let mut statements = Statements::new();
    statements.push(Statement::new("START TRANSACTION"));
    let mut register = Statement::new("INSERT INTO outbox_relays (owner, expires_us) VALUES (");
    register.push_bind(owner).push(", ").push(NOW_US).push(" + ").push_bind(TERM_US);
    register.push(") ON DUPLICATE KEY UPDATE expires_us = VALUES(expires_us)");
    statements.push(register);
    // An expired lease is not renewed: another relay may be about to take it.
    let mut extend = Statement::concat(["UPDATE outbox_leases SET expires_us = ", NOW_US, " + "]);
    extend.push_bind(TERM_US);
    if is_new {
        extend.push(", epoch = ").push(NEW_EPOCH);
    }
    push_floors(&mut extend, floors);
    extend.push(" WHERE owner = ").push_bind(owner).push(" AND expires_us > ").push(NOW_US);
    statements.push(extend);
    if !released.is_empty() {
        let mut release = Statement::new("UPDATE outbox_leases SET expires_us = 0 WHERE owner = ");
        release.push_bind(owner).push(" AND partition_no IN ").push_list(released);
        statements.push(release);
    }
    statements.push(Statement::new("COMMIT"));
    read_state(conn, statements, owner).await
}

/// Acquires up to `wanted` partitions whose lease has expired. Returns the leases after it.
pub async fn take(conn: &mut MySqlConnection, owner: &str, wanted: usize) -> Result<LeaseState, DbError> {
    let mut statements = Statements::new();
    let mut update = Statement::new("UPDATE outbox_leases SET owner = ");
    update.push_bind(owner).push(", epoch = ").push(NEW_EPOCH);
    update.push(", expires_us = ").push(NOW_US).push(" + ").push_bind(TERM_US);
    update.push(" WHERE ");
    push_is_free(&mut update);
    update.push(" ORDER BY partition_no LIMIT ").push_bind(u32::try_from(wanted).unwrap_or(u32::MAX));
    statements.push(update);
    read_state(conn, statements, owner).await
}

/// Deletes relays that have died without deregistering.
pub async fn delete_expired_relays(conn: &mut MySqlConnection) -> Result<(), DbError> {
    let mut forget = Statement::concat(["DELETE FROM outbox_relays WHERE expires_us < ", NOW_US, " - "]);
    forget.push_bind(TERM_US).execute(conn).await?;
    Ok(())
}

/// Returns the floors of the partitions that this relay holds.
pub async fn floors(conn: &mut MySqlConnection, owner: &str) -> Result<BTreeMap<u16, Floor>, DbError> {
    let mut select = Statement::new("SELECT partition_no, epoch, floor_id FROM outbox_leases WHERE owner = ");
    let rows: Vec<(u16, u64, u64)> = select.push_bind(owner).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(partition, epoch, id)| (partition, Floor { epoch, id })).collect())
}

/// Writes the floors, releases every lease, and deregisters this relay.
pub async fn leave(conn: &mut MySqlConnection, owner: &str, floors: &BTreeMap<u16, u64>) -> Result<(), DbError> {
    let mut statements = Statements::new();
    statements.push(Statement::new("START TRANSACTION"));
    let mut update = Statement::new("UPDATE outbox_leases SET expires_us = 0");
    push_floors(&mut update, floors);
    update.push(" WHERE owner = ").push_bind(owner);
    statements.push(update);
    let mut forget = Statement::new("DELETE FROM outbox_relays WHERE owner = ");
    forget.push_bind(owner);
    statements.push(forget);
    statements.push(Statement::new("COMMIT"));
    statements.run(conn).await.map(drop)
}

/// Adds the assignment of the floors, which never go back.
fn push_floors(update: &mut Statement, floors: &BTreeMap<u16, u64>) {
    if floors.is_empty() {
        return;
    }
    update.push(", floor_id = GREATEST(floor_id, CASE partition_no");
    for (partition, floor) in floors {
        update.push(" WHEN ").push_bind(partition).push(" THEN ").push_bind(floor);
    }
    update.push(" ELSE 0 END)");
}

/// `NAME_PREFIX` in SQL.
const IS_CURRENT: &str = "owner LIKE '2-%'";

fn push_is_free(sql: &mut Statement) {
    sql.push("(expires_us <= ").push(NOW_US).push(" OR NOT ").push(IS_CURRENT).push(")");
}

async fn read_state(
    conn: &mut MySqlConnection,
    mut statements: Statements,
    owner: &str,
) -> Result<LeaseState, DbError> {
    let mut leases = Statement::new("SELECT partition_no, epoch, owner = ");
    leases.push_bind(owner).push(" AND expires_us > ").push(NOW_US).push(", ");
    push_is_free(&mut leases);
    leases.push(" FROM outbox_leases");
    let leases = statements.push(leases);
    let mut relays = Statement::concat(["SELECT COUNT(IF(expires_us > ", NOW_US, " AND ", IS_CURRENT, ", 1, NULL)), "]);
    relays.push("COUNT(IF(expires_us > ").push(NOW_US).push(", 1, NULL)), COUNT(IF(expires_us < ").push(NOW_US);
    relays.push(" - ").push_bind(TERM_US).push(", 1, NULL)) FROM outbox_relays");
    let relays = statements.push(relays);
    let answers = statements.run(conn).await?;
    let leases: Vec<(u16, u64, bool, bool)> = answers.rows(Some(leases))?;
    let relays: Vec<(i64, i64, i64)> = answers.rows(Some(relays))?;
    let (sharing, alive, dead) = relays.first().copied().unwrap_or_default();
    Ok(LeaseState {
        mine: leases
            .iter()
            .filter(|(_, _, is_mine, _)| *is_mine)
            .map(|(partition, epoch, ..)| (*partition, *epoch))
            .collect(),
        free: leases.iter().filter(|(_, _, _, is_free)| *is_free).count(),
        relays: usize::try_from(sharing).unwrap_or(0).max(1),
        has_others: alive > 1,
        has_expired_relays: dead > 0,
    })
}
