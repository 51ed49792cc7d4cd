//! The ends that people asked for: written in the transaction that brings each, and never changed.

use crate::domain::{EndRequest, EndVerb, Order};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement};
use stampede_vocab::{OrderId, RequestId};
use std::collections::HashMap;
use uuid::Uuid;

#[derive(FromRow)]
struct EndRequestRow {
    order_id: Uuid,
    verb: String,
    request_id: String,
}

impl EndRequestRow {
    fn end_request(&self) -> Result<EndRequest, DbError> {
        let verb = EndVerb::parse(&self.verb).ok_or_else(|| self.inconsistent("no such verb"))?;
        let id = RequestId::parse(&self.request_id).map_err(|error| self.inconsistent(error))?;
        Ok(EndRequest { verb, id })
    }

    fn inconsistent(&self, what: impl std::fmt::Display) -> DbError {
        DbError::inconsistent(format!("the request {} of order {}: {what}", self.verb, self.order_id))
    }
}

/// One end asked for.
pub(super) struct NewEndRequest<'a> {
    pub order: OrderId,
    pub request: &'a EndRequest,
    pub asked_us: i64,
}

/// What was asked for between two versions of an order.
pub(super) fn between<'a>(before: &Order, after: &'a Order) -> impl Iterator<Item = NewEndRequest<'a>> {
    let (order, asked_us) = (after.id, after.updated_at.micros());
    let known = before.end_requests.len();
    after.end_requests.iter().skip(known).map(move |request| NewEndRequest { order, request, asked_us })
}

/// Writes new ends asked for.
pub(super) async fn insert(connection: &mut MySqlConnection, requests: Vec<NewEndRequest<'_>>) -> Result<(), DbError> {
    if requests.is_empty() {
        return Ok(());
    }
    let mut insert = Statement::new("INSERT INTO end_requests (order_id, verb, request_id, asked_us) ");
    insert.push_values(requests, |mut row, asked| {
        row.push_bind(asked.order.uuid())
            .push_bind(asked.request.verb.as_str())
            .push_bind(asked.request.id.as_str())
            .push_bind(asked.asked_us);
    });
    insert.execute(connection).await?;
    Ok(())
}

/// The ends asked for of these orders.
pub(super) async fn load(
    connection: &mut MySqlConnection,
    orders: &[Uuid],
) -> Result<HashMap<Uuid, Vec<EndRequest>>, DbError> {
    let mut by_order = HashMap::<_, Vec<_>>::new();
    if orders.is_empty() {
        return Ok(by_order);
    }
    let mut select =
        Statement::new("SELECT order_id, verb, request_id FROM end_requests FORCE INDEX (PRIMARY) WHERE order_id IN ");
    select.push_list(orders);
    let rows: Vec<EndRequestRow> = select.fetch_all(connection).await?;
    for row in rows {
        by_order.entry(row.order_id).or_default().push(row.end_request()?);
    }
    Ok(by_order)
}
