//! Pages of orders, and look-ups of many orders' states. Each list is read along one index, by which it is also sorted;
//! what a filter leaves out is passed over on the way, so what is read of the list is bounded where there is any.

use super::rows::{COLUMNS, OrderRow, Stored, assemble};
use crate::domain::{OrderFilter, OrderStatus, StateName};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::{CouponId, EventId, OrderId, UserId};
use uuid::Uuid;

/// The index that a list is read along.
#[derive(Debug, Clone, Copy)]
pub enum Along {
    /// The orders of a buyer, newest first.
    Buyer(UserId),
    /// The orders of an event, in their order of arrival.
    Event(EventId),
    /// Everybody's orders, newest first.
    Created,
}

/// What is picked out of the list that is read.
#[derive(Debug, Clone, Copy)]
pub struct Picked<'f> {
    /// Only orders of this event.
    pub event: Option<EventId>,
    /// Only these.
    pub filter: &'f OrderFilter,
}

/// A place in a list: the sort value of an order and its id.
pub type Place = (i64, Uuid);

/// A part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// The order that it begins after; `None` for the beginning of the list.
    pub after: Option<Place>,
    /// The last order in it; `None` for the end of the list.
    pub last: Option<Place>,
}

/// Returns the last of the `count` orders after this one, at least one, whether or not the filter takes them; `None` if
/// the list has no more than these. Reads nothing but the index.
pub async fn last_of_stretch(
    conn: &mut MySqlConnection,
    along: Along,
    filter: &OrderFilter,
    after: Option<Place>,
    count: u32,
) -> Result<Option<Place>, DbError> {
    let mut select = Statement::concat(["SELECT ", along.sorted_by(), ", id"]);
    push_stretch(&mut select, along, filter, Stretch { after, last: None });
    select.push(along.sequence()).push(" LIMIT 2 OFFSET ").push_bind(count.saturating_sub(1));
    let places: Vec<Place> = select.fetch_all(conn).await?;
    // The second only says that the list goes on.
    Ok(if let [last, _] = places[..] { Some(last) } else { None })
}

/// Returns at most `limit` of the picked orders in this part of a list, in its sequence.
pub async fn page(
    conn: &mut MySqlConnection,
    along: Along,
    picked: Picked<'_>,
    stretch: Stretch,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let Picked { event, filter } = picked;
    let mut select = Statement::concat(["SELECT ", COLUMNS]);
    push_stretch(&mut select, along, filter, stretch);
    if let Some(event) = event {
        select.push(" AND event_id = ").push_bind(event.uuid());
    }
    if matches!(along, Along::Event(_)) {
        push_times(&mut select, filter);
    }
    if !filter.states.is_empty() {
        select.push(" AND state IN ").push_list(filter.states.iter().flat_map(|state| state.stored_names()));
    }
    select.push(along.sequence()).push(" LIMIT ").push_bind(limit);
    let rows: Vec<OrderRow> = select.fetch_all(&mut *conn).await?;
    assemble(conn, rows, false).await
}

impl Along {
    const fn sorted_by(self) -> &'static str {
        match self {
            Self::Buyer(_) | Self::Created => "created_us",
            Self::Event(_) => "arrival",
        }
    }

    const fn sequence(self) -> &'static str {
        match self {
            Self::Buyer(_) | Self::Created => " ORDER BY created_us DESC, id DESC",
            Self::Event(_) => " ORDER BY arrival, id",
        }
    }
}

/// Appends where to read, which the index can seek.
fn push_stretch(select: &mut Statement, along: Along, filter: &OrderFilter, stretch: Stretch) {
    let Stretch { after, last } = stretch;
    match along {
        Along::Buyer(buyer) => {
            select.push(" FROM orders FORCE INDEX (ix_orders_buyer) WHERE user_id = ").push_bind(buyer.uuid());
        }
        Along::Event(event) => {
            select.push(" FROM orders FORCE INDEX (ix_orders_arrival) WHERE event_id = ").push_bind(event.uuid());
        }
        Along::Created => {
            select.push(" FROM orders FORCE INDEX (ix_orders_created) WHERE TRUE");
        }
    }
    // The first half of each bound is redundant, but the index can seek by it.
    if let Along::Event(_) = along {
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
