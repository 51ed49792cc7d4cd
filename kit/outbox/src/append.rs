//! Writes messages in the transaction that changes the state.

use crate::{PARTITIONS, current_traceparent};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::Timestamp;
use uuid::Uuid;

/// A message to be sent once the transaction has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxMessage {
    /// Kind of aggregate, such as `order`.
    pub aggregate_type: &'static str,
    /// Id of the aggregate: the key of the message. Messages of one aggregate are sent in order.
    pub aggregate_id: String,
    /// Version of the aggregate after the change, allocated under its row lock.
    pub aggregate_version: i64,
    /// Full name of the protobuf message, such as `stampede.message.v1.OrderPlaced`.
    pub message_type: String,
    /// The encoded protobuf message.
    pub payload: Vec<u8>,
    /// `traceparent` of the request or message that caused it; `None` takes that of the current span.
    pub traceparent: Option<String>,
}

impl OutboxMessage {
    /// Returns the partition of its aggregate, which is the same in every process and release.
    fn partition(&self) -> u16 {
        let hash = hash(&self.aggregate_id);
        u16::try_from(hash % u64::from(PARTITIONS)).expect("a remainder is less than the divisor")
    }
}

/// FNV-1a: stable across releases, which the hasher of the standard library is not.
pub(crate) fn hash(aggregate_id: &str) -> u64 {
    aggregate_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns a unique id. A row number would not do: a restored database may assign it a second time.
#[expect(clippy::disallowed_methods, reason = "there is nothing unique to derive it from")]
fn message_id() -> String {
    Uuid::now_v7().to_string()
}

/// Rows of one statement, so that it stays well under the packet limits of both servers.
const ROWS_PER_STATEMENT: usize = 500;

/// Writes the messages inside the caller's transaction, in the order given.
pub async fn append(conn: &mut MySqlConnection, messages: &[OutboxMessage]) -> Result<(), DbError> {
    let mut statements = Statements::new();
    push_append(&mut statements, messages);
    statements.run(conn).await.map(drop)
}

/// Adds to the statements of the caller's transaction those that write the messages, in the order given.
pub fn push_append(statements: &mut Statements, messages: &[OutboxMessage]) {
    let now_us = Timestamp::now().micros();
    let current = current_traceparent();
    for rows in messages.chunks(ROWS_PER_STATEMENT) {
        let mut insert = Statement::new(
            "INSERT INTO outbox (message_id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, \
             traceparent, created_us) ",
        );
        insert.push_values(rows, |mut row, message| {
            row.push_bind(message_id())
                .push_bind(message.partition())
                .push_bind(message.aggregate_type)
                .push_bind(&message.aggregate_id)
                .push_bind(message.aggregate_version)
                .push_bind(&message.message_type)
                .push_bind(&message.payload)
                .push_bind(message.traceparent.as_ref().or(current.as_ref()))
                .push_bind(now_us);
        });
        statements.push_expecting(insert, "writing messages", rows.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str) -> OutboxMessage {
        OutboxMessage {
            aggregate_type: "order",
            aggregate_id: id.to_owned(),
            aggregate_version: 1,
            message_type: "stampede.message.v1.OrderPlaced".to_owned(),
            payload: Vec::new(),
            traceparent: None,
        }
    }

    #[test]
    fn an_aggregate_keeps_its_partition_across_releases() {
        // Fixed values: a change would send messages of one aggregate through two relays at once.
        assert_eq!(of("ord_0000000000000000000000001a").partition(), 15);
        assert_eq!(of("").partition(), 5);
        assert_eq!(of("a").partition(), 12);
    }

    #[test]
    fn no_two_messages_have_one_id() {
        let ids: std::collections::BTreeSet<_> = (0..1_000).map(|_| message_id()).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| id.len() == 36));
    }

    #[test]
    fn partitions_are_shared_out_evenly() {
        let mut counts = [0; PARTITIONS as usize];
        for n in 0..16_000 {
            counts[usize::from(of(&format!("ord_{n:026}")).partition())] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1_200).contains(&count)), "{counts:?}");
    }
}
