//! Messages, and the handler of a service that applies them.

use crate::Headers;
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use std::{collections::HashSet, future::Future, pin::Pin};

/// Longest key, source and id that fit into the columns of a dead letter, in bytes of ASCII.
const MAX_NAME: usize = 64;
/// Longest type.
const MAX_TYPE: usize = 128;

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its writer, such as `/stampede/order`. With `id` it identifies the message.
    pub source: String,
    /// Its id at its source.
    pub id: String,
    /// Version of its aggregate; 0 where the writer does not say.
    pub sequence: i64,
    /// Full name of the protobuf message, such as `stampede.message.v1.OrderPlaced`.
    pub message_type: String,
    /// Key: the id of the aggregate that it is about.
    pub key: String,
    /// The encoded protobuf message.
    pub payload: Vec<u8>,
    /// The trace in which it was written.
    pub traceparent: Option<String>,
    /// Topic that it came on.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Every header as it came.
    pub headers: Headers,
}

/// A record that is no message of ours. Identified by its offset and a hash of its content.
#[derive(Debug, thiserror::Error)]
#[error("{topic}[{partition}]@{offset} has no readable {part}")]
pub(crate) struct Unreadable {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The header that is missing or cannot be read, or "key".
    pub part: &'static str,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Unreadable {
    fn new(record: &BorrowedMessage<'_>, part: &'static str) -> Self {
        Self {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            part,
            key: record.key().map(<[u8]>::to_vec),
            payload: record.payload().map(<[u8]>::to_vec),
            headers: Headers::of(record),
        }
    }
}

impl Message {
    /// Returns the message in this record; `None` if it is of another type. Fails if a header is missing or malformed.
    pub(crate) fn read(
        record: &BorrowedMessage<'_>,
        message_types: &HashSet<String>,
    ) -> Result<Option<Self>, Box<Unreadable>> {
        let unreadable = |part| Box::new(Unreadable::new(record, part));
        let required = |name, longest| {
            let value = header(record, name).filter(|value| fits(value, longest));
            value.map(str::to_owned).ok_or_else(|| unreadable(name))
        };
        let message_type = required("ce_type", MAX_TYPE)?;
        if !message_types.contains(&message_type) {
            return Ok(None);
        }
        let key = std::str::from_utf8(record.key().unwrap_or_default()).ok().filter(|key| fits(key, MAX_NAME));
        Ok(Some(Self {
            source: required("ce_source", MAX_NAME)?,
            id: required("ce_id", MAX_NAME)?,
            sequence: sequence(header(record, "ce_sequence")),
            message_type,
            key: key.ok_or_else(|| unreadable("key"))?.to_owned(),
            payload: record.payload().unwrap_or_default().to_vec(),
            traceparent: header(record, "traceparent").map(str::to_owned),
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            headers: Headers::of(record),
        }))
    }
}

/// Parses the version from its header; 0 without a valid one.
pub(crate) fn sequence(header: Option<&str>) -> i64 {
    header.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn fits(name: &str, longest: usize) -> bool {
    name.is_ascii() && name.len() <= longest
}

fn header<'m>(record: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m str> {
    let headers = record.headers()?;
    headers.iter().find(|header| header.key == name).and_then(|header| std::str::from_utf8(header.value?).ok())
}

/// Why a batch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The database failed. The batch is retried; if [`DbError::is_of_data`] says that one message may be at fault, the
    /// batch is bisected to find it. A message of a newer release is left to a replica of that release.
    #[error(transparent)]
    Db(#[from] DbError),
    /// One message can never be applied: it becomes a dead letter, and the batch is retried without it.
    #[error("message {index} of the batch cannot be applied: {detail}")]
    Poison {
        /// Place in the batch, from 0.
        index: usize,
        /// Why, for the operator.
        detail: String,
    },
}

impl HandleError {
    /// Returns the error of the message at this place, for which a row is needed that cannot be read. Only what is the
    /// row's own fault counts against the message. Everything else is retried: a row of a newer release waits for a
    /// replica that can read it.
    pub fn of_row(index: usize, error: DbError) -> Self {
        match error {
            DbError::Inconsistent(detail) => Self::Poison { index, detail },
            error => Self::Db(error),
        }
    }
}

/// A boxed future that borrows its arguments.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Applies messages for a service.
pub trait Handler: Send + Sync + 'static {
    /// The effects to run after the commit.
    type Effects: Send + 'static;

    /// Applies messages inside a transaction, in the order given. They are of the types that the consumer was made for.
    ///
    /// Must be idempotent: any message may be delivered again at any later time, also after later messages of its key,
    /// and must then change nothing, by the state of the rows that it would change. It must have no effect outside of
    /// the transaction, which may be rolled back.
    ///
    /// Two consumers may process the same messages concurrently: one that was frozen does not know yet that it has lost
    /// its partition. No offset is stored in the database that would fence it. So the handler must lock the rows that
    /// it changes before it decides by their state: the later consumer waits, and finds a duplicate.
    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Self::Effects, HandleError>>;

    /// Runs the effects after the commit. They are lost if the process dies in between, so a sweep must repair that.
    fn committed(&self, effects: Self::Effects) -> Boxed<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[test]
    fn only_the_fault_of_a_row_counts_against_the_message() {
        let of_row = HandleError::of_row(3, DbError::inconsistent("it has no lines"));
        assert!(
            matches!(&of_row, HandleError::Poison { index: 3, detail } if detail == "it has no lines"),
            "{of_row:?}"
        );
        for error in [
            DbError::newer("a state"),
            DbError::Schema("a column is missing".to_owned()),
            DbError::BrokenOff("read"),
            DbError::TimedOut { name: "read", after: Duration::from_secs(5) },
            DbError::Sqlx(Arc::new(sqlx::Error::PoolTimedOut)),
        ] {
            let text = error.to_string();
            let of_row = HandleError::of_row(3, error);
            assert!(matches!(&of_row, HandleError::Db(error) if error.to_string() == text), "{of_row:?}");
        }
    }
}
