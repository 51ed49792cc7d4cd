//! The table `ledger`.

use crate::domain::{Buyers, Entry, EntryState, ItemChange, LateAnswer, OrderedLine, Position, RejectReason};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{EventId, Fingerprint, ItemId, OrderId, Timestamp, UserId};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

const COMMITTED: &str = "COMMITTED";
const RELEASED: &str = "RELEASED";

#[derive(FromRow)]
struct Row {
    order_id: Uuid,
    item_id: Uuid,
    user_id: Uuid,
    event_id: Uuid,
    arrival: i64,
    units: i32,
    gift_units: i32,
    state: String,
    committed_at_us: i64,
    released_at_us: Option<i64>,
    granted_at_us: Option<i64>,
    request_fingerprint: Option<Vec<u8>>,
    late_answer: Option<String>,
}

#[derive(FromRow)]
struct BuyerRow {
    item_id: Uuid,
    user_id: Uuid,
    units: i64,
}

/// A row as it was read, or why it cannot be.
pub type StoredEntry = Result<Entry, DbError>;

/// Returns the rows of these orders, each with its order: one that cannot be read fails alone.
pub async fn each_of_orders(
    conn: &mut MySqlConnection,
    orders: &[OrderId],
) -> Result<Vec<(OrderId, StoredEntry)>, DbError> {
    let mut statements = Statements::new();
    let place = push_of_orders(&mut statements, orders);
    let rows: Vec<Row> = statements.run(conn).await?.rows(place)?;
    Ok(rows.into_iter().map(|row| (OrderId::from_uuid(row.order_id), row.entry())).collect())
}

/// Returns the rows of these orders. Fails if one of them cannot be read.
pub async fn of_orders(conn: &mut MySqlConnection, orders: &[OrderId]) -> Result<Vec<Entry>, DbError> {
    let mut statements = Statements::new();
    let place = push_of_orders(&mut statements, orders);
    entries(&statements.run(conn).await?, place)
}

/// Adds the statement that reads the rows of these orders.
pub fn push_of_orders(statements: &mut Statements, orders: &[OrderId]) -> Option<Place> {
    push_select(statements, orders, "")
}

/// Adds the same statement with a shared lock on the rows: it waits for transactions that write them.
pub fn push_of_orders_locked(statements: &mut Statements, orders: &[OrderId]) -> Option<Place> {
    push_select(statements, orders, " LOCK IN SHARE MODE")
}

/// Returns the rows that such a statement has read.
pub fn entries(answers: &Answers, place: Option<Place>) -> Result<Vec<Entry>, DbError> {
    answers.rows(place)?.into_iter().map(Row::entry).collect()
}

/// Forces the primary key: for a long list both servers plan by statistics, which after quick growth still suggest a
/// full scan.
fn push_select(statements: &mut Statements, orders: &[OrderId], how: &'static str) -> Option<Place> {
    if orders.is_empty() {
        return None;
    }
    let mut query = Statement::new(
        "SELECT order_id, item_id, user_id, event_id, arrival, units, gift_units, state, committed_at_us, \
         released_at_us, granted_at_us, request_fingerprint, late_answer FROM ledger FORCE INDEX (PRIMARY) WHERE order_id IN ",
    );
    query.push_list(orders.iter().map(OrderId::uuid));
    query.push(how);
    Some(statements.push(query))
}

/// The key of a row, and when its units were committed; `None` if they are not.
pub type CommittedAt = (OrderId, ItemId, Option<Timestamp>);

/// Returns up to `limit` rows after the row `after`, in key order, of all orders.
pub async fn page(
    conn: &mut MySqlConnection,
    after: Option<(OrderId, ItemId)>,
    limit: u32,
) -> Result<Vec<CommittedAt>, DbError> {
    let (order, item) = after.map_or((Uuid::nil(), Uuid::nil()), |(order, item)| (order.uuid(), item.uuid()));
    let rows: Vec<(Uuid, Uuid, Option<i64>)> = sqlx::query_as(
        "SELECT order_id, item_id, IF(state = 'COMMITTED', committed_at_us, NULL) FROM ledger FORCE INDEX (PRIMARY) \
         WHERE order_id > ? OR (order_id = ? AND item_id > ?) ORDER BY order_id, item_id LIMIT ?",
    )
    .bind(order)
    .bind(order)
    .bind(item)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let row = |(order, item, at_us): (Uuid, Uuid, Option<i64>)| {
        (OrderId::from_uuid(order), ItemId::from_uuid(item), at_us.map(Timestamp::from_micros))
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Returns the units of these buyers; a buyer without any is left out.
pub async fn units_of(conn: &mut MySqlConnection, buyers: &BTreeSet<(ItemId, UserId)>) -> Result<Buyers, DbError> {
    let mut statements = Statements::new();
    let place = push_units_of(&mut statements, buyers);
    buyers_of_rows(&statements.run(conn).await?, place)
}

/// Adds the statement that reads the units of these buyers.
pub fn push_units_of(statements: &mut Statements, buyers: &BTreeSet<(ItemId, UserId)>) -> Option<Place> {
    if buyers.is_empty() {
        return None;
    }
    // One index search for each item: both servers plan this well, unlike a list of (item, buyer) pairs, whose planning
    // time grows with the square of its length.
    let buyers: Vec<_> = buyers.iter().collect();
    let mut query = Statement::new("");
    let mut searches = query.separated(" UNION ALL ");
    for of_item in buyers.chunk_by(|(one, _), (other, _)| one == other) {
        searches
            .push("SELECT item_id, user_id, CAST(SUM(units) AS SIGNED) AS units FROM ledger FORCE INDEX (ledger_by_buyer) WHERE item_id = ")
            .push_bind_unseparated(of_item[0].0.uuid())
            .push_unseparated(" AND state = 'COMMITTED' AND user_id IN ")
            .push_list_unseparated(of_item.iter().map(|(_, user_id)| user_id.uuid()))
            .push_unseparated(" GROUP BY item_id, user_id");
    }
    Some(statements.push(query))
}

/// Returns the units that such a statement has read; a buyer without any is left out.
pub fn buyers_of_rows(answers: &Answers, place: Option<Place>) -> Result<Buyers, DbError> {
    let buyer = |row: BuyerRow| {
        let units = units(row.units)?;
        Ok(((ItemId::from_uuid(row.item_id), UserId::from_uuid(row.user_id)), units))
    };
    answers.rows(place)?.into_iter().map(buyer).collect()
}

/// Returns up to `limit` buyers that the item ever had, after the buyer `after`, ordered by id; those who gave all back
/// have 0 units. Forces the index, which covers the query in this order.
pub async fn buyers_of(
    conn: &mut MySqlConnection,
    item: ItemId,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<(UserId, i32)>, DbError> {
    let rows: Vec<BuyerRow> = sqlx::query_as(
        "SELECT item_id, user_id, CAST(SUM(IF(state = 'COMMITTED', units, 0)) AS SIGNED) AS units \
         FROM ledger FORCE INDEX (ledger_by_buyer) WHERE item_id = ? AND user_id > ? \
         GROUP BY item_id, user_id ORDER BY item_id, user_id LIMIT ?",
    )
    .bind(item.uuid())
    .bind(after.map_or(Uuid::nil(), |user| user.uuid()))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((UserId::from_uuid(row.user_id), units(row.units)?))).collect()
}

/// Returns the version and buyer of up to `limit` rows of the item that were last changed in the versions `from` to
/// `to`, after the position `after`, in this order.
pub async fn changes_of(
    conn: &mut MySqlConnection,
    item: ItemId,
    (from, to): (i64, i64),
    after: Option<Position>,
    limit: u32,
) -> Result<Vec<Position>, DbError> {
    let (version, user) = after.map_or((from, Uuid::nil()), |(version, user)| (version, user.uuid()));
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(
        "SELECT item_version, user_id FROM ledger FORCE INDEX (ledger_by_change) \
         WHERE item_id = ? AND item_version >= ? AND item_version <= ? AND (item_version > ? OR user_id > ?) \
         ORDER BY item_version, user_id LIMIT ?",
    )
    .bind(item.uuid())
    .bind(version)
    .bind(to)
    .bind(version)
    .bind(user)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(version, user)| (version, UserId::from_uuid(user))).collect())
}

/// Returns the last place of arrival in the ledger of an event; 0 if there is none. The stock rows have it, unless an
/// earlier release may have written ledger rows: the index for the slower query exists only then.
pub async fn last_arrival(conn: &mut MySqlConnection, event: EventId) -> Result<i64, DbError> {
    let indexed: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() \
         AND table_name = 'ledger' AND index_name = 'ledger_by_arrival'",
    )
    .fetch_one(&mut *conn)
    .await?;
    let select = if indexed > 0 {
        "SELECT MAX(arrival) FROM ledger WHERE event_id = ?"
    } else {
        "SELECT MAX(last_arrival) FROM stock WHERE event_id = ?"
    };
    let last: Option<i64> = sqlx::query_scalar(select).bind(event.uuid()).fetch_one(conn).await?;
    Ok(last.unwrap_or(0))
}

/// Adds the statement that upserts rows, each with the version that its item gets by these changes. The caller has
/// locked their items, so nobody else writes them.
pub fn push_write(statements: &mut Statements, entries: &[Entry], items: &[ItemChange]) {
    if entries.is_empty() {
        return;
    }
    let versions: HashMap<ItemId, i64> = items.iter().map(|change| (change.item_id, change.after.version)).collect();
    let mut query = Statement::new(
        "INSERT INTO ledger (order_id, item_id, user_id, event_id, arrival, units, gift_units, state, \
         committed_at_us, released_at_us, granted_at_us, request_fingerprint, late_answer, item_version) ",
    );
    query.push_values(entries, |mut row, entry| {
        let (state, committed_at, released_at) = columns(entry.state);
        row.push_bind(entry.order_id.uuid())
            .push_bind(entry.line.item_id.uuid())
            .push_bind(entry.user_id.uuid())
            .push_bind(entry.event_id.uuid())
            .push_bind(entry.arrival)
            .push_bind(entry.line.units)
            .push_bind(entry.line.gift_units)
            .push_bind(state)
            .push_bind(committed_at.micros())
            .push_bind(released_at.map(Timestamp::micros))
            .push_bind(entry.granted_at.map(Timestamp::micros))
            .push_bind(entry.fingerprint.as_ref().map(Fingerprint::as_bytes))
            .push_bind(entry.late_answer.map(late_answer_name))
            .push_bind(versions.get(&entry.line.item_id).copied());
    });
    query.push(
        " ON DUPLICATE KEY UPDATE units = VALUES(units), gift_units = VALUES(gift_units), state = VALUES(state), \
         committed_at_us = VALUES(committed_at_us), released_at_us = VALUES(released_at_us), arrival = VALUES(arrival), \
         granted_at_us = VALUES(granted_at_us), request_fingerprint = VALUES(request_fingerprint), \
         late_answer = VALUES(late_answer), \
         item_version = COALESCE(VALUES(item_version), item_version)",
    );
    statements.push(query);
}

fn columns(state: EntryState) -> (&'static str, Timestamp, Option<Timestamp>) {
    match state {
        EntryState::Committed { at } => (COMMITTED, at, None),
        EntryState::Released { committed_at, released_at } => (RELEASED, committed_at, Some(released_at)),
    }
}

const fn late_answer_name(answer: LateAnswer) -> &'static str {
    match answer {
        LateAnswer::Committed => COMMITTED,
        LateAnswer::Rejected(reason) => reason.as_str(),
    }
}

fn units(sum: i64) -> Result<i32, DbError> {
    i32::try_from(sum).map_err(|_| DbError::inconsistent(format!("a buyer has {sum} units of one item")))
}

impl Row {
    fn entry(self) -> Result<Entry, DbError> {
        let state = self.state()?;
        let item_id = ItemId::from_uuid(self.item_id);
        Ok(Entry {
            order_id: OrderId::from_uuid(self.order_id),
            user_id: UserId::from_uuid(self.user_id),
            event_id: EventId::from_uuid(self.event_id),
            arrival: self.arrival,
            granted_at: self.granted_at_us.map(Timestamp::from_micros),
            fingerprint: self.fingerprint()?,
            late_answer: self.late_answer()?,
            line: OrderedLine { item_id, units: self.units, gift_units: self.gift_units },
            state,
        })
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>, DbError> {
        let stored = self.request_fingerprint.as_deref().map(Fingerprint::parse).transpose();
        stored.map_err(|error| DbError::inconsistent(format!("{}: {error}", OrderId::from_uuid(self.order_id))))
    }

    fn late_answer(&self) -> Result<Option<LateAnswer>, DbError> {
        let answer = |name: &str| match name {
            COMMITTED => Ok(LateAnswer::Committed),
            name => RejectReason::parse(name).map(LateAnswer::Rejected).ok_or_else(|| self.newer(name)),
        };
        self.late_answer.as_deref().map(answer).transpose()
    }

    fn newer(&self, name: &str) -> DbError {
        DbError::newer(format!("{} is {name} in the ledger", OrderId::from_uuid(self.order_id)))
    }

    fn state(&self) -> Result<EntryState, DbError> {
        let committed_at = Timestamp::from_micros(self.committed_at_us);
        match (self.state.as_str(), self.released_at_us.map(Timestamp::from_micros)) {
            (COMMITTED, None) => Ok(EntryState::Committed { at: committed_at }),
            (RELEASED, Some(released_at)) => Ok(EntryState::Released { committed_at, released_at }),
            (state, _) if state != COMMITTED && state != RELEASED => Err(self.newer(state)),
            (state, released_at) => Err(DbError::inconsistent(format!(
                "{} is {state} in the ledger, released at {released_at:?}",
                OrderId::from_uuid(self.order_id)
            ))),
        }
    }
}
