//! Maps the errors of the use cases to the problems that callers get, all in one place.

use crate::usecase::Error;
use stampede_status::{Problem, Reason};
use tonic::Status;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(error) => error.into(),
            Error::NotFound => Self::new(Reason::PaymentNotFound, error.to_string()).field("payment_id"),
            Error::InvalidSignature => Self::new(Reason::InvalidSignature, error.to_string()),
            Error::NotLookedUp(ref cause) => Self::new(Reason::Unavailable, error.to_string()).internal(cause),
            Error::Db(error) => error.into(),
            Error::Batch(error) => error.into(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}
