//! The table `reservations`: requests for units in the ledger whose orders are not known to be written.

use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{OrderId, Timestamp};
use std::collections::HashSet;
use uuid::Uuid;

/// A request for the units of an order: the order and the request time.
pub type Reservation = (OrderId, Timestamp);

/// Adds the statement that inserts these reservations. It fails if two have the same order and request time.
pub fn push_insert(statements: &mut Statements, reservations: &[Reservation]) {
    if reservations.is_empty() {
        return;
    }
    let mut query = Statement::new("INSERT INTO reservations (order_id, asked_at_us) ");
    query.push_values(reservations, |mut row, (order_id, request_time)| {
        row.push_bind(order_id.uuid()).push_bind(request_time.micros());
    });
    statements.push_expecting(query, "writing who has asked", reservations.len());
}

/// Returns those of these orders that have a reservation, so that they are not known to be written.
pub async fn unconfirmed(conn: &mut MySqlConnection, orders: &[OrderId]) -> Result<HashSet<OrderId>, DbError> {
    Ok(of_orders(conn, orders).await?.into_iter().map(|(order_id, _)| order_id).collect())
}

/// Returns up to `limit` reservations requested before `before`, after the reservation `after`, the oldest first.
pub async fn aged(
    conn: &mut MySqlConnection,
    before: Timestamp,
    after: Option<Reservation>,
    limit: u32,
) -> Result<Vec<Reservation>, DbError> {
    let mut query = Statement::new("SELECT order_id, asked_at_us FROM reservations WHERE asked_at_us < ");
    query.push_bind(before.micros());
    if let Some((order_id, request_time)) = after {
        query.push(" AND asked_at_us >= ").push_bind(request_time.micros());
        query.push(" AND (asked_at_us > ").push_bind(request_time.micros());
        query.push(" OR order_id > ").push_bind(order_id.uuid()).push(")");
    }
    // The order of the index by age, which ends with the primary key.
    query.push(" ORDER BY asked_at_us, order_id LIMIT ").push_bind(limit);
    let rows: Vec<(Uuid, i64)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(reservation).collect())
}

/// Adds the statements that delete these reservations, as far as they are still there. Returns the orders without a
/// reservation left, whose units nobody needs. The caller has locked the items, so nobody adds one in between.
pub async fn take(
    conn: &mut MySqlConnection,
    writes: &mut Statements,
    reservations: &[Reservation],
) -> Result<Vec<OrderId>, DbError> {
    let orders: HashSet<OrderId> = reservations.iter().map(|(order_id, _)| *order_id).collect();
    let stored = of_orders(conn, &orders.iter().copied().collect::<Vec<_>>()).await?;
    let requested: HashSet<&Reservation> = reservations.iter().collect();
    let (taken, left): (Vec<Reservation>, Vec<Reservation>) =
        stored.into_iter().partition(|one| requested.contains(one));
    let left: HashSet<OrderId> = left.into_iter().map(|(order_id, _)| order_id).collect();
    let (shared, last): (Vec<Reservation>, Vec<Reservation>) =
        taken.into_iter().partition(|(order_id, _)| left.contains(order_id));
    let last: HashSet<OrderId> = last.into_iter().map(|(order_id, _)| order_id).collect();
    let last: Vec<OrderId> = last.into_iter().collect();
    push_delete(writes, &last);
    // One statement each will do: it is rare that another request for the same order is under way.
    for (order_id, request_time) in shared {
        let mut query = Statement::new("DELETE FROM reservations WHERE order_id = ");
        query.push_bind(order_id.uuid()).push(" AND asked_at_us = ").push_bind(request_time.micros());
        writes.push(query);
    }
    Ok(last)
}

async fn of_orders(conn: &mut MySqlConnection, orders: &[OrderId]) -> Result<Vec<Reservation>, DbError> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let mut query =
        Statement::new("SELECT order_id, asked_at_us FROM reservations FORCE INDEX (PRIMARY) WHERE order_id IN ");
    query.push_list(orders.iter().map(OrderId::uuid));
    let rows: Vec<(Uuid, i64)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(reservation).collect())
}

fn reservation((order_id, asked_at_us): (Uuid, i64)) -> Reservation {
    (OrderId::from_uuid(order_id), Timestamp::from_micros(asked_at_us))
}

/// Deletes the reservations of orders that are known to be written.
pub async fn delete(conn: &mut MySqlConnection, orders: &[OrderId]) -> Result<(), DbError> {
    let mut writes = Statements::new();
    push_delete(&mut writes, orders);
    writes.run(conn).await.map(drop)
}

fn push_delete(writes: &mut Statements, orders: &[OrderId]) {
    if orders.is_empty() {
        return;
    }
    let mut query = Statement::new("DELETE r FROM reservations r FORCE INDEX (PRIMARY) WHERE r.order_id IN ");
    query.push_list(orders.iter().map(OrderId::uuid));
    writes.push(query);
}
