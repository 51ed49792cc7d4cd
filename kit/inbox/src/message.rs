//! Messages, and the handler of a service that applies them.

use rdkafka::{
    Message as _,
    message::{BorrowedHeaders, BorrowedMessage, Headers, OwnedHeaders},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use std::{collections::HashSet, future::Future, pin::Pin};

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its writer, such as `/stampede/order`. With `id` it identifies the message.
    pub source: String,
    /// Its number at its source.
    pub id: u64,
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
}

/// A record without the headers that every message of ours has. Only its place names it.
#[derive(Debug, thiserror::Error)]
#[error("{topic}[{partition}]@{offset} has no readable header {header}")]
pub(crate) struct Unreadable {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The header that is missing or cannot be read.
    pub header: &'static str,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: OwnedHeaders,
}

impl Unreadable {
    fn new(record: &BorrowedMessage<'_>, header: &'static str) -> Self {
        Self {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            header,
            key: record.key().map(<[u8]>::to_vec),
            payload: record.payload().map(<[u8]>::to_vec),
            headers: record.headers().map(BorrowedHeaders::detach).unwrap_or_default(),
        }
    }
}

impl Message {
    /// Returns whether both are the same record of Kafka. An offset is unique only within its partition.
    pub(crate) fn is_same_delivery(&self, other: &Self) -> bool {
        (&self.topic, self.partition, self.offset) == (&other.topic, other.partition, other.offset)
    }

    /// Returns the message in this record; `None` if it is of another type. Fails if a header is missing or malformed.
    pub(crate) fn read(
        record: &BorrowedMessage<'_>,
        message_types: &HashSet<String>,
    ) -> Result<Option<Self>, Box<Unreadable>> {
        let unreadable = |name| Box::new(Unreadable::new(record, name));
        let required = |name| header(record, name).ok_or_else(|| unreadable(name));
        let message_type = required("ce_type")?;
        if !message_types.contains(message_type) {
            return Ok(None);
        }
        Ok(Some(Self {
            source: required("ce_source")?.to_owned(),
            id: required("ce_id")?.parse().map_err(|_| unreadable("ce_id"))?,
            message_type: message_type.to_owned(),
            key: record.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
            payload: record.payload().unwrap_or_default().to_vec(),
            traceparent: header(record, "traceparent").map(str::to_owned),
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
        }))
    }
}

fn header<'m>(record: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m str> {
    let headers = record.headers()?;
    headers.iter().find(|header| header.key == name).and_then(|header| std::str::from_utf8(header.value?).ok())
}

/// Why a batch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The database: the batch is tried again.
    #[error(transparent)]
    Db(#[from] DbError),
    /// One message can never be applied: it becomes a dead letter, and the batch is tried without it.
    #[error("message {index} of the batch cannot be applied: {detail}")]
    Poison {
        /// Place in the batch, from 0.
        index: usize,
        /// Why, for the operator.
        detail: String,
    },
}

/// A future that borrows what it was called with.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Applies messages for a service.
pub trait Handler: Send + Sync + 'static {
    /// The effects to run after the commit.
    type Effects: Send + 'static;

    /// Applies new messages inside the transaction that records them, in the order given. They are of the types that
    /// the consumer was made for. May run again with the same messages, so it has no effect outside the transaction.
    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Self::Effects, HandleError>>;

    /// Runs the effects after the commit. They are lost if the process dies in between, so a sweep must repair that.
    fn committed(&self, effects: Self::Effects) -> Boxed<'_, ()>;
}
