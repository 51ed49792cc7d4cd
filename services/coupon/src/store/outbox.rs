//! The table `outbox`: messages are appended in the transaction that changes the state.

use crate::{domain::OutgoingMessage, messages};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_outbox::OutboxMessage;

/// Appends messages, each with the traceparent of the request that caused it.
pub async fn append(
    conn: &mut MySqlConnection,
    outgoing: impl IntoIterator<Item = (OutgoingMessage, Option<String>)>,
) -> Result<(), DbError> {
    let rows: Vec<OutboxMessage> = outgoing
        .into_iter()
        .map(|(outgoing, traceparent)| OutboxMessage { traceparent, ..messages::encode(&outgoing) })
        .collect();
    stampede_outbox::append(conn, &rows).await
}
