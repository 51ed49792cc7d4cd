//! Why the service could not do what it was asked.

use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_lua::RedisError;
use stampede_vocab::EventId;
use std::sync::Arc;

/// A failure, to be told to the caller as far as it concerns them.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// No stock was ever staged for the event.
    #[error("there is no stock of event {0}")]
    EventNotFound(EventId),
    /// The event's stock is on its way into Redis.
    #[error("the stock of event {0} is being staged")]
    NotReady(EventId),
    /// The queue of reservations.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The ledger's database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Redis. Shared, since one failure fails every reservation of a batch.
    #[error(transparent)]
    Redis(Arc<RedisError>),
}

impl From<RedisError> for InventoryError {
    fn from(error: RedisError) -> Self {
        Self::Redis(Arc::new(error))
    }
}
