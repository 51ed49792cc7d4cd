//! The errors of the use cases.

use crate::{
    client::PeerError,
    domain::{CommandRefusal, PlaceRefusal},
};
use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_vocab::EventId;

/// Why a use case failed. `Clone`, since a failed batch fails for each call in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Place(#[from] PlaceRefusal),
    #[error(transparent)]
    Command(#[from] CommandRefusal),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Db(#[from] DbError),
    /// The batch queue is full, or the batch failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// No cancellation of the event is known.
    #[error("no cancellation of event {0} is known")]
    EventNotCancelled(EventId),
    /// The write limit has passed, so the units and the coupon may be freed at any time. The order is not written.
    #[error("the order could not be written in time: repeat it as it was")]
    TooLate,
    /// The task of the call panicked or was cancelled.
    #[error("the purchase was broken off")]
    BrokenOff,
}
