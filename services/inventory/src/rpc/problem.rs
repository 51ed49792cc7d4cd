//! Maps the errors of the service to the problems that callers get, all in one place.

use crate::usecase::Error;
use stampede_status::{Problem, Reason};
use tonic::Status;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::EventNotFound(_) => Self::new(Reason::EventNotFound, error.to_string()).field("event_id"),
            Error::NotReady(_) => Self::new(Reason::NotReady, error.to_string()).field("event_id"),
            Error::Db(error) => error.into(),
            Error::Redis(error) => error.into(),
            Error::Batch(error) => error.into(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}
