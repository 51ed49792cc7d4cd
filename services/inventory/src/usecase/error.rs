//! The errors of the use cases.

use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_lua::RedisError;
use stampede_vocab::EventId;

/// Why a use case failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No stock was ever staged for the event.
    #[error("there is no stock of event {0}")]
    EventNotFound(EventId),
    /// The event's stock is being staged in Redis.
    #[error("the stock of event {0} is being staged")]
    NotReady(EventId),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The queue into the ledger is full, or the batch failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
}
