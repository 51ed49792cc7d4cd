//! Pages of orders, and look-ups of many orders' states. Each list is read along one index, by which it is also sorted;
//! what a filter leaves out is passed over on the way.

use super::rows::{COLUMNS, OrderRow, Stored, assemble};
use crate::domain::{OrderFilter, OrderStatus, StateName};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::{CouponId, EventId, OrderId, UserId};
use uuid::Uuid;

/// Returns at most `limit` orders of a buyer (of one event, if it is given), newest first, after this position.
pub async fn of_buyer(
    conn: &mut MySqlConnection,
    buyer: UserId,
    event: Option<EventId>,
    filter: &OrderFilter,
    after: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut select =
        Statement::concat(["SELECT ", COLUMNS, " FROM orders FORCE INDEX (ix_orders_buyer) WHERE user_id = "]);
    select.push_bind(buyer.uuid());
    if let Some(event) = event {
        select.push(" AND event_id = ").push_bind(event.uuid());
    }
    push_filter(&mut select, filter);
    newest_first(conn, select, after, limit).await
}

/// Returns at most `limit` orders of everybody, newest first, after this position.
pub async fn all(
    conn: &mut MySqlConnection,
    filter: &OrderFilter,
    after: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut select = Statement::concat(["SELECT ", COLUMNS, " FROM orders FORCE INDEX (ix_orders_created) WHERE TRUE"]);
    push_filter(&mut select, filter);
    newest_first(conn, select, after, limit).await
}

/// Returns at most `limit` orders of an event in their order of arrival, after this position.
pub async fn of_event(
    conn: &mut MySqlConnection,
    event: EventId,
    filter: &OrderFilter,
    after: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut select =
        Statement::concat(["SELECT ", COLUMNS, " FROM orders FORCE INDEX (ix_orders_arrival) WHERE event_id = "]);
    select.push_bind(event.uuid());
    push_filter(&mut select, filter);
    if let Some((arrival, id)) = after {
        select.push(" AND arrival >= ").push_bind(arrival);
        select.push(" AND (arrival > ").push_bind(arrival).push(" OR id > ").push_bind(id).push(")");
    }
    select.push(" ORDER BY arrival, id LIMIT ").push_bind(limit);
    page(conn, select).await
}

fn push_filter(select: &mut Statement, filter: &OrderFilter) {
    if let Some(from) = filter.from {
        select.push(" AND created_us >= ").push_bind(from.micros());
    }
    if let Some(until) = filter.until {
        select.push(" AND created_us < ").push_bind(until.micros());
    }
    if !filter.states.is_empty() {
        select.push(" AND state IN ").push_list(filter.states.iter().flat_map(|state| state.stored_names()));
    }
}

async fn newest_first(
    conn: &mut MySqlConnection,
    mut select: Statement,
    after: Option<(i64, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    if let Some((created_us, id)) = after {
        // Redundant, but the index can seek by this half.
        select.push(" AND created_us <= ").push_bind(created_us);
        select.push(" AND (created_us < ").push_bind(created_us).push(" OR id < ").push_bind(id).push(")");
    }
    select.push(" ORDER BY created_us DESC, id DESC LIMIT ").push_bind(limit);
    page(conn, select).await
}

async fn page(conn: &mut MySqlConnection, mut select: Statement) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<OrderRow> = select.fetch_all(&mut *conn).await?;
    assemble(conn, rows, false).await
}

/// Returns the states of those of these orders that exist. Waits for one that is being written: a caller that learns
/// that an order was not written frees its units and coupon.
pub async fn statuses(conn: &mut MySqlConnection, ids: &[OrderId]) -> Result<Vec<OrderStatus>, DbError> {
    let ids: Vec<Uuid> = ids.iter().map(OrderId::uuid).collect();
    let mut select = Statement::new("SELECT id, state, coupon_id FROM orders FORCE INDEX (PRIMARY) WHERE id IN ");
    select.push_list(&ids);
    select.push(" LOCK IN SHARE MODE");
    let rows: Vec<(Uuid, String, Option<Uuid>)> = select.fetch_all(conn).await?;
    let status = |(id, state, coupon): (Uuid, String, Option<Uuid>)| OrderStatus {
        id: OrderId::from_uuid(id),
        state: StateName::parse(&state),
        coupon: coupon.map(CouponId::from_uuid),
    };
    Ok(rows.into_iter().map(status).collect())
}
