//! Payment requests that are not in the row of their order: inserted in the transaction that starts the payment, and
//! never changed.

use super::packed::MAX_PAYMENTS;
use crate::domain::{Form, Order, PayRequest, Step};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{Fingerprint, InvalidField, RequestId};
use std::collections::HashMap;
use uuid::Uuid;

#[derive(FromRow)]
pub(super) struct PayRequestRow {
    order_id: Uuid,
    request_id: String,
    request_fingerprint: Vec<u8>,
}

impl PayRequestRow {
    pub(super) fn pay_request(&self) -> Result<PayRequest, InvalidField> {
        let fingerprint = Fingerprint::parse(&self.request_fingerprint)?;
        Ok(PayRequest { id: RequestId::parse(&self.request_id)?, fingerprint })
    }
}

/// Returns whether this payment request needs a row of its own: the row of its order does not hold it.
fn needs_row(order: &Order, attempt: i32) -> bool {
    order.form == Form::Tables || usize::try_from(attempt).is_ok_and(|attempt| attempt > MAX_PAYMENTS)
}

/// Adds the statement that inserts the payment requests that these transitions start.
pub(super) fn push_insert(statements: &mut Statements, steps: &[(&Order, &Step)]) {
    let started = steps.iter().filter_map(|(order, step)| Some((order, step.pay_request.as_ref()?)));
    let started: Vec<_> = started.filter(|(order, (attempt, _))| needs_row(order, *attempt)).collect();
    if started.is_empty() {
        return;
    }
    let mut insert =
        Statement::new("INSERT INTO pay_requests (order_id, attempt, request_id, request_fingerprint, asked_us) ");
    insert.push_values(started, |mut row, (order, (attempt, request))| {
        row.push_bind(order.id.uuid())
            .push_bind(attempt)
            .push_bind(request.id.as_str())
            .push_bind(request.fingerprint.as_bytes())
            .push_bind(order.updated_at.micros());
    });
    statements.push(insert);
}

/// Returns the rows of these orders, by order, in the order of their attempts.
pub(super) async fn load(
    conn: &mut MySqlConnection,
    orders: &[Uuid],
) -> Result<HashMap<Uuid, Vec<PayRequestRow>>, DbError> {
    let mut by_order = HashMap::<_, Vec<_>>::new();
    if orders.is_empty() {
        return Ok(by_order);
    }
    let mut select = Statement::new(
        "SELECT order_id, request_id, request_fingerprint FROM pay_requests FORCE INDEX (PRIMARY) WHERE order_id IN ",
    );
    select.push_list(orders);
    select.push(" ORDER BY order_id, attempt");
    let rows: Vec<PayRequestRow> = select.fetch_all(conn).await?;
    for row in rows {
        by_order.entry(row.order_id).or_default().push(row);
    }
    Ok(by_order)
}
