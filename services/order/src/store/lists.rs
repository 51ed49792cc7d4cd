//! Pages of orders, and look-ups of many orders' states. A list is read along one index, in the order of that index.
//! Rows that the filter rejects are scanned all the same, so a filtered page scans a bounded range.

use super::rows::{COLUMNS, OrderRow, Stored, assemble};
use crate::domain::{OrderFilter, OrderStatus, StateName};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::{CouponId, EventId, OrderId, UserId};
use uuid::Uuid;

#[derive(Debug, Clone, Copy)]
pub enum ListIndex {
    /// The orders of a buyer, newest first.
    Buyer(UserId),
    /// The orders of an event, in their order of arrival.
    Event(EventId),
    /// All orders, newest first.
    Created,
}

/// Conditions on the orders of a page, beside the index.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'f> {
    /// Only orders of this event.
    pub event: Option<EventId>,
    /// Only orders that match it.
    pub filter: &'f OrderFilter,
}

/// A position in a list: the sort value of an order, and its id.
pub type Position = (i64, Uuid);

/// A range of a list.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange {
    /// The exclusive start; `None` for the start of the list.
    pub after: Option<Position>,
    /// The inclusive end; `None` for the end of the list.
    pub last: Option<Position>,
}

/// Returns the position of the last of `count` orders after `after`, whether or not they match the filter; `None` if
/// the list has no more than these. Reads the index alone. `count` is at least one.
pub async fn end_of_range(
    conn: &mut MySqlConnection,
    index: ListIndex,
    filter: &OrderFilter,
    after: Option<Position>,
    count: u32,
) -> Result<Option<Position>, DbError> {
    let mut select = Statement::concat(["SELECT ", index.sort_column(), ", id"]);
    push_range(&mut select, index, filter, KeyRange { after, last: None });
    select.push(index.order_by()).push(" LIMIT 2 OFFSET ").push_bind(count.saturating_sub(1));
    let positions: Vec<Position> = select.fetch_all(conn).await?;
    // The second row only shows that the list goes on.
    Ok(if let [last, _] = positions[..] { Some(last) } else { None })
}

/// Returns up to `limit` orders of this range that match, in the order of the list.
pub async fn page(
    conn: &mut MySqlConnection,
    index: ListIndex,
    conditions: Conditions<'_>,
    range: KeyRange,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let Conditions { event, filter } = conditions;
    let mut select = Statement::concat(["SELECT ", COLUMNS]);
    push_range(&mut select, index, filter, range);
    if let Some(event) = event {
        select.push(" AND event_id = ").push_bind(event.uuid());
    }
    if matches!(index, ListIndex::Event(_)) {
        push_times(&mut select, filter);
    }
    if !filter.states.is_empty() {
        select.push(" AND state IN ").push_list(filter.states.iter().flat_map(|state| state.stored_names()));
    }
    select.push(index.order_by()).push(" LIMIT ").push_bind(limit);
    let rows: Vec<OrderRow> = select.fetch_all(&mut *conn).await?;
    assemble(conn, rows, false).await
}

impl ListIndex {
    const fn sort_column(self) -> &'static str {
        match self {
            Self::Buyer(_) | Self::Created => "created_us",
            Self::Event(_) => "arrival",
        }
    }

    const fn order_by(self) -> &'static str {
        match self {
            Self::Buyer(_) | Self::Created => " ORDER BY created_us DESC, id DESC",
            Self::Event(_) => " ORDER BY arrival, id",
        }
    }
}

/// Appends the table, the index and the range to scan.
fn push_range(select: &mut Statement, index: ListIndex, filter: &OrderFilter, range: KeyRange) {
    let KeyRange { after, last } = range;
    match index {
        ListIndex::Buyer(buyer) => {
            select.push(" FROM orders FORCE INDEX (ix_orders_buyer) WHERE user_id = ").push_bind(buyer.uuid());
        }
        ListIndex::Event(event) => {
            select.push(" FROM orders FORCE INDEX (ix_orders_arrival) WHERE event_id = ").push_bind(event.uuid());
        }
        ListIndex::Created => {
            select.push(" FROM orders FORCE INDEX (ix_orders_created) WHERE TRUE");
        }
    }
    // The first half of each bound is redundant, but the index can seek to it.
    if let ListIndex::Event(_) = index {
        if let Some((arrival, id)) = after {
            select.push(" AND arrival >= ").push_bind(arrival);
            select.push(" AND (arrival > ").push_bind(arrival).push(" OR id > ").push_bind(id).push(")");
        }
        if let Some((arrival, id)) = last {
            select.push(" AND arrival <= ").push_bind(arrival);
            select.push(" AND (arrival < ").push_bind(arrival).push(" OR id <= ").push_bind(id).push(")");
        }
        return;
    }
    push_times(select, filter);
    if let Some((created_us, id)) = after {
        select.push(" AND created_us <= ").push_bind(created_us);
        select.push(" AND (created_us < ").push_bind(created_us).push(" OR id < ").push_bind(id).push(")");
    }
    if let Some((created_us, id)) = last {
        select.push(" AND created_us >= ").push_bind(created_us);
        select.push(" AND (created_us > ").push_bind(created_us).push(" OR id >= ").push_bind(id).push(")");
    }
}

fn push_times(select: &mut Statement, filter: &OrderFilter) {
    if let Some(from) = filter.from {
        select.push(" AND created_us >= ").push_bind(from.micros());
    }
    if let Some(until) = filter.until {
        select.push(" AND created_us < ").push_bind(until.micros());
    }
}

/// Returns the states of those of these orders that exist. Waits for an order that is being written: the caller frees
/// the units and the coupon of an order that was not.
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
