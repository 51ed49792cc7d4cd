//! The requests that ended orders: inserted in the transaction that ends the order, and never changed.

use crate::domain::{EndRequest, EndVerb, Order};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{RequestId, UserId};
use std::{collections::HashMap, fmt::Display};
use uuid::Uuid;

#[derive(FromRow)]
pub(super) struct EndRequestRow {
    order_id: Uuid,
    verb: String,
    asked_by: Uuid,
    request_id: String,
}

impl EndRequestRow {
    pub(super) fn end_request(&self) -> Result<EndRequest, DbError> {
        let verb = EndVerb::parse(&self.verb).ok_or_else(|| self.inconsistent("no such verb"))?;
        let id = RequestId::parse(&self.request_id).map_err(|error| self.inconsistent(error))?;
        Ok(EndRequest { verb, by: UserId::from_uuid(self.asked_by), id })
    }

    fn inconsistent(&self, what: impl Display) -> DbError {
        DbError::inconsistent(format!("the request {} of order {}: {what}", self.verb, self.order_id))
    }
}

/// Adds the statement that inserts the requests that end these orders.
pub(super) fn push_insert(statements: &mut Statements, ended: &[(&Order, &EndRequest)]) {
    if ended.is_empty() {
        return;
    }
    let mut insert = Statement::new("INSERT INTO end_requests (order_id, verb, asked_by, request_id, asked_us) ");
    insert.push_values(ended, |mut row, (order, request)| {
        row.push_bind(order.id.uuid())
            .push_bind(request.verb.as_str())
            .push_bind(request.by.uuid())
            .push_bind(request.id.as_str())
            .push_bind(order.updated_at.micros());
    });
    statements.push(insert);
}

/// Returns the requests that ended these orders.
pub(super) async fn load(conn: &mut MySqlConnection, orders: &[Uuid]) -> Result<HashMap<Uuid, EndRequestRow>, DbError> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    let mut select = Statement::new(
        "SELECT order_id, verb, asked_by, request_id FROM end_requests FORCE INDEX (PRIMARY) WHERE order_id IN ",
    );
    select.push_list(orders);
    let rows: Vec<EndRequestRow> = select.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.order_id, row)).collect())
}
