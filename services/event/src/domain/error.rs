//! The refusals of requests.

use crate::domain::State;
use stampede_vocab::{EventId, InvalidField, Timestamp};
use std::time::Duration;

/// Why a request is refused. A refusal changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field has a value that is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error("there is no event {0}")]
    NotFound(EventId),
    /// The caller has used the request id for another request.
    #[error("the request id was used before for a request that is not the same")]
    RequestIdReused,
    /// The event is past the state in which its times can be moved.
    #[error("the event is {state} and its times can only be moved while it is SCHEDULED")]
    NotScheduled { state: State },
    /// The event has changed since the version that the caller has seen.
    #[error("the event has version {version} and not {expected}")]
    VersionMismatch {
        /// Its current version.
        version: i64,
        expected: i64,
    },
    /// The event opens too soon for every replica of inventory to receive the new time.
    #[error("the event opens in {} ms; its times can be moved until {} ms before it opens", left.as_millis(), lead.as_millis())]
    TooLate {
        /// Time left to the opening.
        left: Duration,
        /// Least time that must be left.
        lead: Duration,
    },
    /// It is not yet time for the transition.
    #[error("the event is {state} and nothing is due before {due_at:?}")]
    NotDue {
        state: State,
        /// When the next transition is due; `None` if never.
        due_at: Option<Timestamp>,
    },
}
