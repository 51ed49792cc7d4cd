//! News, written in the transaction of the change they tell.

use crate::{domain::Outgoing, messages};
use sqlx::MySqlConnection;
use stampede_db::DbError;

/// News and the trace of what caused them.
#[derive(Debug, Clone)]
pub struct Traced {
    /// The news.
    pub outgoing: Outgoing,
    /// `traceparent` of the request or message that caused them; `None` outside a trace.
    pub traceparent: Option<String>,
}

/// Encodes the news and appends them to the outbox, in the order given.
pub async fn append(connection: &mut MySqlConnection, news: Vec<Traced>) -> Result<(), DbError> {
    let rows: Vec<_> = news.into_iter().map(|told| messages::encode(&told.outgoing, told.traceparent)).collect();
    stampede_outbox::append(connection, &rows).await
}
