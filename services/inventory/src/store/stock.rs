//! The table `stock`.

use crate::domain::{Committed, Entry, Item, ItemChange, LastGrant, Shelf, ShelfItem, Titles, Window, Withdrawal};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{Currency, EventId, ItemId, Money, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use uuid::Uuid;

const COLUMNS: &str = "item_id, event_id, event_version, opens_at_us, closes_at_us, total_units, committed_units, \
                       limit_per_buyer, gift_total_units, gift_committed_units, unit_price_minor, currency, version, \
                       arrivals_floor, numbered_changes, title, gift_title, last_grant_arrival, last_grant_us";

#[derive(FromRow)]
struct Row {
    item_id: Uuid,
    event_id: Uuid,
    event_version: i64,
    opens_at_us: i64,
    closes_at_us: i64,
    total_units: i32,
    committed_units: i32,
    limit_per_buyer: i32,
    gift_total_units: i32,
    gift_committed_units: i32,
    unit_price_minor: i64,
    currency: String,
    version: i64,
    arrivals_floor: Option<i64>,
    numbered_changes: i64,
    last_grant_arrival: Option<i64>,
    last_grant_us: Option<i64>,
}

/// The last grant of an item that has one.
#[derive(FromRow)]
struct LastGrantRow {
    event_id: Uuid,
    last_grant_arrival: i64,
    last_grant_us: i64,
}

/// The title columns, which are not in [`Row`].
#[derive(FromRow)]
struct TitlesRow {
    item_id: Uuid,
    title: Option<String>,
    gift_title: Option<String>,
}

/// The items of an event, or why one of them cannot be read.
pub type StoredItems = Result<Vec<Item>, DbError>;

/// Upserts the items of events. The newer of two versions of an event wins; a total never falls below the committed
/// units.
pub async fn stage(conn: &mut MySqlConnection, shelves: &[Shelf]) -> Result<(), DbError> {
    let mut rows: Vec<_> =
        shelves.iter().flat_map(|shelf| shelf.items.iter().map(move |offered| (shelf, offered))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    // In key order, in which all transactions lock them.
    rows.sort_by_key(|(_, offered)| offered.item.item_id);
    let mut query = Statement::new(
        "INSERT INTO stock (item_id, event_id, event_version, opens_at_us, closes_at_us, total_units, limit_per_buyer, \
         gift_total_units, unit_price_minor, currency, title, gift_title) ",
    );
    query.push_values(rows, |mut row, (shelf, offered)| {
        let item = &offered.item;
        row.push_bind(item.item_id.uuid())
            .push_bind(shelf.event_id.uuid())
            .push_bind(shelf.event_version)
            .push_bind(shelf.window.open_time.micros())
            .push_bind(shelf.window.close_time.micros())
            .push_bind(item.total_units)
            .push_bind(item.limit_per_buyer)
            .push_bind(item.gift_total_units)
            .push_bind(item.unit_price.minor_units)
            .push_bind(item.unit_price.currency.to_string())
            .push_bind(if_known(&offered.titles.item))
            .push_bind(if_known(&offered.titles.gift));
    });
    query.push(" ON DUPLICATE KEY UPDATE ");
    let mut updates = query.separated(", ");
    for (column, value) in [
        ("opens_at_us", "VALUES(opens_at_us)"),
        ("closes_at_us", "VALUES(closes_at_us)"),
        ("total_units", "GREATEST(VALUES(total_units), committed_units)"),
        ("limit_per_buyer", "VALUES(limit_per_buyer)"),
        ("gift_total_units", "GREATEST(VALUES(gift_total_units), gift_committed_units)"),
        ("unit_price_minor", "VALUES(unit_price_minor)"),
        ("currency", "VALUES(currency)"),
        ("title", "COALESCE(VALUES(title), title)"),
        ("gift_title", "COALESCE(VALUES(gift_title), gift_title)"),
        ("is_over", "FALSE"),
        // Last: the others compare with it, and columns are set from left to right.
        ("event_version", "VALUES(event_version)"),
    ] {
        let newer = " = IF(VALUES(event_version) > event_version, ";
        updates.push(column).push_unseparated(newer).push_unseparated(value);
        updates.push_unseparated(", ").push_unseparated(column).push_unseparated(")");
    }
    query.execute(conn).await?;
    Ok(())
}

/// Returns the stored form of a title: NULL if it is not known.
fn if_known(title: &str) -> Option<&str> {
    (!title.is_empty()).then_some(title)
}

/// Raises the floor of the places of arrival in an event: the next ones are above it.
pub async fn raise_arrivals_floor(conn: &mut MySqlConnection, event: EventId, floor: i64) -> Result<(), DbError> {
    sqlx::query("UPDATE stock SET arrivals_floor = GREATEST(COALESCE(arrivals_floor, 0), ?) WHERE event_id = ?")
        .bind(floor)
        .bind(event.uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends the windows of cancelled events at their cancellation, unless they had closed before.
pub async fn withdraw(conn: &mut MySqlConnection, withdrawals: &[Withdrawal]) -> Result<(), DbError> {
    if withdrawals.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("UPDATE stock s JOIN (");
    let mut rows = query.separated(" UNION ALL ");
    for withdrawal in withdrawals {
        rows.push("SELECT CAST(")
            .push_bind_unseparated(withdrawal.event_id.uuid())
            .push_unseparated(" AS BINARY(16)) AS event_id, CAST(")
            .push_bind_unseparated(withdrawal.event_version)
            .push_unseparated(" AS SIGNED) AS event_version, CAST(")
            .push_bind_unseparated(withdrawal.cancel_time.micros())
            .push_unseparated(" AS SIGNED) AS cancelled_at_us");
    }
    query.push(
        ") w ON w.event_id = s.event_id SET s.closes_at_us = LEAST(s.closes_at_us, w.cancelled_at_us), \
         s.event_version = w.event_version WHERE s.event_version < w.event_version",
    );
    query.execute(conn).await?;
    Ok(())
}

/// Returns the items of each of these events that has any, ordered by id: a row that cannot be read fails its own event
/// alone.
pub async fn each_of_events(
    conn: &mut MySqlConnection,
    events: &[EventId],
) -> Result<Vec<(EventId, StoredItems)>, DbError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = select();
    query.push(" WHERE event_id IN ");
    query.push_list(events.iter().map(EventId::uuid));
    query.push(" ORDER BY event_id, item_id");
    fetch_by_event(conn, query).await
}

/// Returns the ids of the items of these events.
pub async fn ids_of_events(conn: &mut MySqlConnection, events: &[EventId]) -> Result<Vec<ItemId>, DbError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = Statement::new("SELECT item_id FROM stock WHERE event_id IN ");
    query.push_list(events.iter().map(EventId::uuid));
    let rows: Vec<(Uuid,)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id,)| ItemId::from_uuid(id)).collect())
}

/// Returns the close times of those of these events of which stock was ever staged.
pub async fn closings(conn: &mut MySqlConnection, events: &[EventId]) -> Result<HashMap<EventId, Timestamp>, DbError> {
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = Statement::new("SELECT event_id, MAX(closes_at_us) FROM stock WHERE event_id IN ");
    query.push_list(events.iter().map(EventId::uuid)).push(" GROUP BY event_id");
    let rows: Vec<(Uuid, i64)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, close_time)| (EventId::from_uuid(id), Timestamp::from_micros(close_time))).collect())
}

/// Returns the events that open before `soon` and had not closed at `closing_after`, ordered by id.
pub async fn open_events(
    conn: &mut MySqlConnection,
    soon: Timestamp,
    closing_after: Timestamp,
) -> Result<Vec<EventId>, DbError> {
    let rows: Vec<(Uuid,)> = sqlx::query_as(
        "SELECT DISTINCT event_id FROM stock FORCE INDEX (stock_by_opening) \
         WHERE is_over = FALSE AND opens_at_us < ? AND closes_at_us > ? ORDER BY event_id",
    )
    .bind(soon.micros())
    .bind(closing_after.micros())
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(id,)| EventId::from_uuid(id)).collect())
}

/// Returns up to `limit` events that open between these times, with their open times, the earliest first. An event that
/// was cancelled before its opening never opens.
pub async fn opening(
    conn: &mut MySqlConnection,
    (from, until): (Timestamp, Timestamp),
    limit: u32,
) -> Result<Vec<(EventId, Timestamp)>, DbError> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT DISTINCT event_id, opens_at_us FROM stock FORCE INDEX (stock_by_opening) \
         WHERE is_over = FALSE AND opens_at_us >= ? AND opens_at_us < ? AND closes_at_us > opens_at_us \
         ORDER BY opens_at_us, event_id LIMIT ?",
    )
    .bind(from.micros())
    .bind(until.micros())
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(id, open_time)| (EventId::from_uuid(id), Timestamp::from_micros(open_time))).collect())
}

/// Marks up to `limit` items as over, of events that opened before `soon` and had closed at `closed_at`. Returns how
/// many. Reads them without a lock first, so that it does not wait for items that are on sale.
pub async fn mark_over(
    conn: &mut MySqlConnection,
    soon: Timestamp,
    closed_at: Timestamp,
    limit: u32,
) -> Result<usize, DbError> {
    let rows: Vec<(Uuid,)> = sqlx::query_as(
        "SELECT item_id FROM stock FORCE INDEX (stock_by_opening) \
         WHERE is_over = FALSE AND opens_at_us < ? AND closes_at_us <= ? LIMIT ?",
    )
    .bind(soon.micros())
    .bind(closed_at.micros())
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut query = Statement::new("UPDATE stock SET is_over = TRUE WHERE closes_at_us <= ");
    query.push_bind(closed_at.micros()).push(" AND item_id IN ").push_list(rows.iter().map(|(item,)| *item));
    query.execute(conn).await?;
    Ok(rows.len())
}

/// Returns up to `limit` events that had not closed at `closing_after`, after `after`, ordered by id.
pub async fn page_of_events(
    conn: &mut MySqlConnection,
    closing_after: Timestamp,
    after: Option<EventId>,
    limit: usize,
) -> Result<Vec<EventId>, DbError> {
    let rows: Vec<(Uuid,)> = sqlx::query_as(
        "SELECT DISTINCT event_id FROM stock FORCE INDEX (stock_by_event) WHERE event_id > ? AND closes_at_us > ? \
         ORDER BY event_id LIMIT ?",
    )
    .bind(after.map_or(Uuid::nil(), |event| event.uuid()))
    .bind(closing_after.micros())
    .bind(limit as u64)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(id,)| EventId::from_uuid(id)).collect())
}

pub async fn of_items(conn: &mut MySqlConnection, items: &[ItemId]) -> Result<Vec<Item>, DbError> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    fetch(conn, select_items(items)).await
}

/// Adds the statement that locks these items, ordered by id, so that two transactions do not deadlock.
pub fn push_lock(statements: &mut Statements, items: &[ItemId]) -> Option<Place> {
    if items.is_empty() {
        return None;
    }
    let mut query = select_items(items);
    query.push(" FOR UPDATE");
    Some(statements.push(query))
}

/// Returns the items that such a statement has read.
pub fn items(answers: &Answers, place: Option<Place>) -> Result<Vec<Item>, DbError> {
    let rows: Vec<Row> = answers.rows(place)?;
    rows.iter().map(Row::item).collect()
}

/// Returns the titles of the items that such a statement has read.
pub fn titles(answers: &Answers, place: Option<Place>) -> Result<HashMap<ItemId, Arc<Titles>>, DbError> {
    let titles = |row: TitlesRow| {
        let titles = Titles { item: row.title.unwrap_or_default(), gift: row.gift_title.unwrap_or_default() };
        (ItemId::from_uuid(row.item_id), Arc::new(titles))
    };
    Ok(answers.rows(place)?.into_iter().map(titles).collect())
}

/// Adds the statement that reads the last grants of all items of these events, without a lock.
pub fn push_last_grants(statements: &mut Statements, events: &BTreeSet<EventId>) -> Option<Place> {
    if events.is_empty() {
        return None;
    }
    let mut query = Statement::new(
        "SELECT event_id, last_grant_arrival, last_grant_us FROM stock FORCE INDEX (stock_by_event) \
         WHERE last_grant_us IS NOT NULL AND event_id IN ",
    );
    query.push_list(events.iter().map(EventId::uuid));
    Some(statements.push(query))
}

/// Returns the last grants that such a statement has read, by event.
pub fn last_grants(answers: &Answers, place: Option<Place>) -> Result<BTreeMap<EventId, Vec<LastGrant>>, DbError> {
    let rows: Vec<LastGrantRow> = answers.rows(place)?;
    let mut by_event: BTreeMap<EventId, Vec<LastGrant>> = BTreeMap::new();
    for row in rows {
        let granted_at = Timestamp::from_micros(row.last_grant_us);
        let last = LastGrant { arrival: row.last_grant_arrival, granted_at };
        by_event.entry(EventId::from_uuid(row.event_id)).or_default().push(last);
    }
    Ok(by_event)
}

/// Adds the statement that changes the committed units of locked items, and stores their last grants and the last place
/// of arrival among these ledger rows. It increments the versions of the items, with which the rows are written. It
/// fails unless the committed units of each item stay between 0 and its total.
pub fn push_add(statements: &mut Statements, changes: &[ItemChange], entries: &[Entry]) {
    if changes.is_empty() {
        return;
    }
    let mut query = Statement::new("UPDATE stock s JOIN (");
    let mut rows = query.separated(" UNION ALL ");
    for change in changes {
        rows.push("SELECT CAST(")
            .push_bind_unseparated(change.item_id.uuid())
            .push_unseparated(" AS BINARY(16)) AS item_id, CAST(")
            .push_bind_unseparated(change.units)
            .push_unseparated(" AS SIGNED) AS units, CAST(")
            .push_bind_unseparated(change.gift_units)
            .push_unseparated(" AS SIGNED) AS gift_units, CAST(")
            .push_bind_unseparated(last_arrival(entries, change.item_id))
            .push_unseparated(" AS SIGNED) AS arrival, CAST(")
            .push_bind_unseparated(change.last_grant.map(|last| last.arrival))
            .push_unseparated(" AS SIGNED) AS grant_arrival, CAST(")
            .push_bind_unseparated(change.last_grant.map(|last| last.granted_at.micros()))
            .push_unseparated(" AS SIGNED) AS grant_us");
    }
    query.push(
        ") d ON d.item_id = s.item_id SET s.committed_units = s.committed_units + d.units, \
         s.gift_committed_units = s.gift_committed_units + d.gift_units, s.version = s.version + 1, \
         s.numbered_changes = s.numbered_changes + 1, \
         s.last_arrival = GREATEST(COALESCE(s.last_arrival, 0), d.arrival), \
         s.last_grant_arrival = d.grant_arrival, s.last_grant_us = d.grant_us \
         WHERE s.committed_units + d.units BETWEEN 0 AND s.total_units \
         AND s.gift_committed_units + d.gift_units BETWEEN 0 AND s.gift_total_units",
    );
    statements.push_expecting(query, "committing units", changes.len());
}

/// Returns the last place of arrival in these rows of an item; 0 without any.
fn last_arrival(entries: &[Entry], item: ItemId) -> i64 {
    let of_item = entries.iter().filter(|entry| entry.line.item_id == item);
    of_item.map(|entry| entry.arrival).max().unwrap_or(0)
}

fn select() -> Statement {
    let mut select = Statement::new("SELECT ");
    select.push(COLUMNS).push(" FROM stock");
    select
}

/// Returns the items that are on sale at `now` or will be by `soon`, by event: a row that cannot be read fails its own
/// event alone.
pub async fn on_sale(
    conn: &mut MySqlConnection,
    now: Timestamp,
    soon: Timestamp,
) -> Result<Vec<(EventId, StoredItems)>, DbError> {
    let mut query = select();
    query.push(" FORCE INDEX (stock_by_opening) WHERE is_over = FALSE AND opens_at_us <= ").push_bind(soon.micros());
    query.push(" AND closes_at_us > ").push_bind(now.micros());
    query.push(" ORDER BY event_id, item_id");
    fetch_by_event(conn, query).await
}

fn select_items(items: &[ItemId]) -> Statement {
    let mut query = select();
    query.push(" WHERE item_id IN ");
    query.push_list(items.iter().map(ItemId::uuid));
    query.push(" ORDER BY item_id");
    query
}

async fn fetch(conn: &mut MySqlConnection, mut query: Statement) -> Result<Vec<Item>, DbError> {
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    rows.iter().map(Row::item).collect()
}

/// Fetches the rows of a statement that orders them by event.
async fn fetch_by_event(
    conn: &mut MySqlConnection,
    mut query: Statement,
) -> Result<Vec<(EventId, StoredItems)>, DbError> {
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    let of_event =
        |rows: &[Row]| (EventId::from_uuid(rows[0].event_id), rows.iter().map(Row::item).collect::<StoredItems>());
    Ok(rows.chunk_by(|one, next| one.event_id == next.event_id).map(of_event).collect())
}

impl Row {
    fn item(&self) -> Result<Item, DbError> {
        let item_id = ItemId::from_uuid(self.item_id);
        let currency =
            Currency::stored(&self.currency).map_err(|error| DbError::inconsistent(format!("{item_id}: {error}")))?;
        Ok(Item {
            event_id: EventId::from_uuid(self.event_id),
            event_version: self.event_version,
            window: Window {
                open_time: Timestamp::from_micros(self.opens_at_us),
                close_time: Timestamp::from_micros(self.closes_at_us),
            },
            shelf: ShelfItem {
                item_id,
                total_units: self.total_units,
                limit_per_buyer: self.limit_per_buyer,
                gift_total_units: self.gift_total_units,
                unit_price: Money::new(self.unit_price_minor, currency),
            },
            committed: Committed {
                units: self.committed_units,
                gift_units: self.gift_committed_units,
                version: self.version,
            },
            arrivals_floor: self.arrivals_floor,
            last_grant: self
                .last_grant_arrival
                .zip(self.last_grant_us)
                .map(|(arrival, granted_us)| LastGrant { arrival, granted_at: Timestamp::from_micros(granted_us) }),
            is_numbered: self.numbered_changes == self.version,
        })
    }
}
