//! The table `orders`: written, locked and updated in batches.

use super::{
    end_requests, goods, lines, packed, pay_requests,
    rows::{COLUMNS, OrderRow, Stored, assemble},
};
use crate::domain::{Form, Order, StateName, Step};
use sqlx::MySqlConnection;
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{OrderId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Most ids of one statement that reads versions. The server plans a list in memory of a bounded size, and reads the
/// whole table for a longer one (`range_optimizer_max_mem_size`, some 36,000 ids).
const IDS_PER_STATEMENT: usize = 4_096;

/// Most orders of one statement that assigns payments: it compares each row with the ids before it, so its cost grows
/// with the square of the orders.
const MAX_CASES: usize = 32;

/// What to do about an order that another transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Wait for the other transaction.
    Wait,
    /// Leave the order out.
    Skip,
}

/// Returns the form of new orders. The schema has it: it depends on whether an earlier release has run on it.
pub async fn new_form(conn: &mut MySqlConnection) -> Result<Form, DbError> {
    let one_row: bool = sqlx::query_scalar("SELECT one_row FROM order_form").fetch_one(conn).await?;
    Ok(if one_row { Form::OneRow } else { Form::Tables })
}

/// Adds the statements that insert new orders with their lines. All fail with a unique violation if one of the orders
/// exists.
pub fn push_insert(statements: &mut Statements, orders: &[&Order]) {
    let mut insert = Statement::new(
        "INSERT INTO orders (id, user_id, event_id, request_id, request_fingerprint, state, version, currency, \
         subtotal_minor, discount_minor, total_minor, coupon_id, arrival, payment_attempts, pay_deadline_us, created_us, \
         updated_us, line_list) ",
    );
    insert.push_values(orders, |mut row, order| {
        row.push_bind(order.id.uuid())
            .push_bind(order.buyer.uuid())
            .push_bind(order.event.uuid())
            .push_bind(order.request.as_str())
            .push_bind(order.fingerprint.as_bytes())
            .push_bind(order.state.name().as_str())
            .push_bind(order.version)
            .push_bind(order.prices.total.currency.as_str())
            .push_bind(order.prices.subtotal.minor_units)
            .push_bind(order.prices.discount.minor_units)
            .push_bind(order.prices.total.minor_units)
            .push_bind(order.coupon.map(|coupon| coupon.uuid()))
            .push_bind(order.arrival)
            .push_bind(order.attempts())
            .push_bind(order.state.pay_deadline().map(Timestamp::micros))
            .push_bind(order.created_at.micros())
            .push_bind(order.updated_at.micros())
            .push_bind((order.form == Form::OneRow).then(|| packed::pack_lines(order)));
    });
    statements.push_expecting(insert, "writing orders", orders.len());
    lines::push_insert(statements, orders);
}

/// Returns the versions of those of these orders that exist, in one round trip.
pub async fn versions(conn: &mut MySqlConnection, ids: &[OrderId]) -> Result<HashMap<OrderId, i64>, DbError> {
    let mut statements = Statements::new();
    let select = |ids: &[OrderId]| {
        let mut select = Statement::new("SELECT id, version FROM orders FORCE INDEX (PRIMARY) WHERE id IN ");
        select.push_list(ids.iter().map(OrderId::uuid));
        statements.push(select)
    };
    let places: Vec<_> = ids.chunks(IDS_PER_STATEMENT).map(select).collect();
    let answers = statements.run(conn).await?;
    let mut versions = HashMap::with_capacity(ids.len());
    for place in places {
        let rows: Vec<(Uuid, i64)> = answers.rows(Some(place))?;
        versions.extend(rows.into_iter().map(|(id, version)| (OrderId::from_uuid(id), version)));
    }
    Ok(versions)
}

/// Returns those of these orders that exist: each one, or the error of its own rows.
pub async fn load(
    conn: &mut MySqlConnection,
    ids: &[OrderId],
) -> Result<HashMap<OrderId, Result<Order, DbError>>, DbError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<OrderRow> = select_by_id(ids).fetch_all(&mut *conn).await?;
    let found = assemble(conn, rows, false).await?;
    Ok(found.into_iter().map(|stored| (stored.id, stored.order)).collect())
}

/// Orders that are locked until the transaction ends, in id order: each one, or the error of its own rows.
pub type Locked = BTreeMap<OrderId, Result<Order, DbError>>;

/// Returns those of these orders that exist, locked.
pub async fn lock(conn: &mut MySqlConnection, ids: &[OrderId], lock: Lock) -> Result<Locked, DbError> {
    let mut statements = Statements::new();
    let place = push_lock(&mut statements, ids, lock);
    let answers = statements.run(conn).await?;
    locked(conn, &answers, place).await
}

/// Adds the statement that locks these orders. Locks in id order, so that overlapping batches wait for each other and
/// do not deadlock.
pub fn push_lock(statements: &mut Statements, ids: &[OrderId], lock: Lock) -> Option<Place> {
    if ids.is_empty() {
        return None;
    }
    let mut select = select_by_id(ids);
    select.push(match lock {
        Lock::Wait => " ORDER BY id FOR UPDATE",
        Lock::Skip => " ORDER BY id FOR UPDATE SKIP LOCKED",
    });
    Some(statements.push(select))
}

/// Returns the orders that the statement of [`push_lock`] has locked.
pub async fn locked(conn: &mut MySqlConnection, answers: &Answers, place: Option<Place>) -> Result<Locked, DbError> {
    let found = assemble(conn, answers.rows(place)?, true).await?;
    Ok(found.into_iter().map(|stored| (stored.id, stored.order)).collect())
}

fn select_by_id(ids: &[OrderId]) -> Statement {
    let mut select = Statement::concat(["SELECT ", COLUMNS, " FROM orders FORCE INDEX (PRIMARY) WHERE id IN "]);
    select.push_list(ids.iter().map(OrderId::uuid));
    select
}

/// An order with transitions to write.
#[derive(Clone, Copy)]
pub struct ChangedOrder<'a> {
    /// The order after them.
    pub order: &'a Order,
    /// Its transitions since it was locked, in order; at least one.
    pub steps: &'a [Step],
}

/// The columns that an order's transitions write. Orders with equal values are updated by one statement. Columns are
/// set but never cleared, so `None` leaves one unchanged.
#[derive(PartialEq, Eq, Hash)]
struct Assignment {
    from: StateName,
    to: StateName,
    versions: i64,
    attempts: i64,
    pay_deadline_us: Option<i64>,
    last_decline: Option<String>,
    fulfilled_at_us: Option<i64>,
    updated_us: i64,
    asks: i32,
}

impl Assignment {
    fn of(ChangedOrder { order, steps }: &ChangedOrder<'_>) -> Self {
        let to = order.state.name();
        Self {
            from: steps.first().map_or(to, |step| step.from),
            to,
            versions: steps.iter().map(|_| 1_i64).sum(),
            attempts: steps.iter().map(|step| i64::from(step.pay_request.is_some())).sum(),
            pay_deadline_us: steps.iter().rev().find_map(|step| step.pay_deadline).map(Timestamp::micros),
            last_decline: steps.iter().rev().find_map(|step| step.decline.clone()),
            fulfilled_at_us: steps.iter().find_map(Step::fulfill_time).map(Timestamp::micros),
            updated_us: order.updated_at.micros(),
            asks: order.asks,
        }
    }
}

/// Adds the statements that write the transitions of locked orders, with their new goods and requests. They fail if a
/// row is not as it was when it was locked.
pub fn push_update(statements: &mut Statements, changed: &[ChangedOrder<'_>]) {
    let mut groups = HashMap::<Assignment, Vec<&Order>>::new();
    for changed_order in changed {
        groups.entry(Assignment::of(changed_order)).or_default().push(changed_order.order);
    }
    // One statement for each kind of transition, not for each order: a batch has few kinds.
    for (assignment, orders) in groups {
        let most = if assignment.attempts > 0 { MAX_CASES } else { orders.len() };
        for orders in orders.chunks(most) {
            push_assignment(statements, &assignment, orders);
        }
    }
    let steps: Vec<(&Order, &Step)> = changed
        .iter()
        .flat_map(|changed_order| changed_order.steps.iter().map(move |step| (changed_order.order, step)))
        .collect();
    for (order, step) in steps.iter().filter(|(_, step)| !step.gifts.is_empty()) {
        match order.form {
            Form::OneRow => push_lines(statements, order),
            Form::Tables => lines::push_gifts(statements, order.id, &step.gifts),
        }
    }
    let fulfilled: Vec<&Order> =
        steps.iter().filter(|(_, step)| step.fulfill_time().is_some()).map(|(order, _)| *order).collect();
    goods::push_insert(statements, &fulfilled);
    pay_requests::push_insert(statements, &steps);
    let ended: Vec<_> = steps.iter().filter_map(|(order, step)| Some((*order, step.end_request.as_ref()?))).collect();
    end_requests::push_insert(statements, &ended);
}

fn push_assignment(statements: &mut Statements, set: &Assignment, orders: &[&Order]) {
    let mut update = Statement::new("UPDATE orders FORCE INDEX (PRIMARY) SET state = ");
    update.push_bind(set.to.as_str());
    update.push(", version = version + ").push_bind(set.versions);
    update.push(", payment_attempts = payment_attempts + ").push_bind(set.attempts);
    update.push(", pay_deadline_us = COALESCE(").push_bind(set.pay_deadline_us).push(", pay_deadline_us)");
    update.push(", last_decline = COALESCE(").push_bind(&set.last_decline).push(", last_decline)");
    update.push(", fulfilled_at_us = COALESCE(").push_bind(set.fulfilled_at_us).push(", fulfilled_at_us)");
    update.push(", updated_us = ").push_bind(set.updated_us);
    update.push(", asks = ").push_bind(set.asks);
    if set.attempts > 0 {
        push_payments(&mut update, orders);
    }
    update.push(" WHERE state = ").push_bind(set.from.as_str());
    update.push(" AND id IN ");
    update.push_list(orders.iter().map(|order| order.id.uuid()));
    statements.push_expecting(update, "moving locked orders", orders.len());
}

/// Assigns the payments of those orders that have them in their row.
fn push_payments(update: &mut Statement, orders: &[&Order]) {
    let mut in_row = orders.iter().filter(|order| order.form == Form::OneRow).peekable();
    if in_row.peek().is_none() {
        return;
    }
    update.push(", pay_list = CASE id");
    for order in in_row {
        update.push(" WHEN ").push_bind(order.id.uuid());
        update.push(" THEN ").push_bind(packed::pack_payments(order));
    }
    update.push(" ELSE pay_list END");
}

/// Adds the statement that updates the lines in the row of an order. Rare, so one statement an order.
fn push_lines(statements: &mut Statements, order: &Order) {
    let mut update = Statement::new("UPDATE orders SET line_list = ");
    update.push_bind(packed::pack_lines(order)).push(" WHERE id = ").push_bind(order.id.uuid());
    statements.push(update);
}

/// Returns up to `limit` orders that an earlier release has left pending, in id order, after `after`.
pub async fn pending(conn: &mut MySqlConnection, after: Option<OrderId>, limit: u32) -> Result<Vec<Stored>, DbError> {
    let mut select = Statement::concat([
        "SELECT ",
        COLUMNS,
        " FROM orders FORCE INDEX (ix_orders_waiting) WHERE due_us = 0 AND id > ",
    ]);
    select.push_bind(after.map_or(Uuid::nil(), |order| order.uuid()));
    select.push(" ORDER BY id LIMIT ").push_bind(limit);
    let rows: Vec<OrderRow> = select.fetch_all(&mut *conn).await?;
    assemble(conn, rows, false).await
}

/// Counts the orders that have requested an answer at least `asks` times and still wait for it.
pub async fn count_unanswered(conn: &mut MySqlConnection, asks: i32) -> Result<u64, DbError> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM orders FORCE INDEX (ix_orders_waiting) WHERE due_us < 0 AND asks >= ?",
    )
    .bind(asks)
    .fetch_one(conn)
    .await?;
    Ok(count.unsigned_abs())
}

/// Counts the orders in each of these states, which must not be terminal. Leaves out a state without orders.
pub async fn count_by_state(
    conn: &mut MySqlConnection,
    states: &[StateName],
) -> Result<Vec<(StateName, u64)>, DbError> {
    let mut select = Statement::new(
        "SELECT state, COUNT(*) FROM orders FORCE INDEX (ix_orders_waiting) WHERE due_us IS NOT NULL AND state IN ",
    );
    select.push_list(states.iter().map(|state| state.as_str()));
    select.push(" GROUP BY state");
    let rows: Vec<(String, i64)> = select.fetch_all(conn).await?;
    let counted = |(state, count): (String, i64)| {
        let name = StateName::parse(&state).ok_or_else(|| DbError::inconsistent(format!("no order state: {state}")))?;
        Ok((name, count.unsigned_abs()))
    };
    rows.into_iter().map(counted).collect()
}
