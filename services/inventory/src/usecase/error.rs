//! Everything that keeps a use case from what it was asked for.

use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_lua::RedisError;
use stampede_vocab::EventId;

/// Why a use case did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No stock was ever staged for the event.
    #[error("there is no stock of event {0}")]
    EventNotFound(EventId),
    /// The event's stock is on its way into Redis.
    #[error("the stock of event {0} is being staged")]
    NotReady(EventId),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The queue into the ledger is full, or the batch failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Error {
    /// Whether a part of what was asked for may succeed where the whole fails: a row is at fault, or only a newer
    /// release can read it.
    pub fn is_of_data(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_of_data())
    }
}
