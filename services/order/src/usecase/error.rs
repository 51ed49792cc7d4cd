//! Everything that keeps a use case from what it was asked for.

use crate::{
    client::PeerError,
    domain::{CommandRefusal, PlaceRefusal},
};
use stampede_batch::BatchError;
use stampede_db::DbError;

/// Why a use case did not do what it was asked for. A failure of a batch is everybody's in it, hence `Clone`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The order is not taken.
    #[error(transparent)]
    Place(#[from] PlaceRefusal),
    /// The verb is not obeyed.
    #[error(transparent)]
    Command(#[from] CommandRefusal),
    /// A service that is needed did not do its part.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The batch queue is full, or the batch failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// So much time has passed that what is held for the order may be given back. It is not written.
    #[error("the order could not be written in time")]
    TooLate,
    /// The task of a purchase ended without an answer.
    #[error("the purchase was broken off")]
    BrokenOff,
}
