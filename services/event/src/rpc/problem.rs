//! Maps the errors of the use cases to the problems that callers get, all in one place.

use crate::{client::Unconfirmed, domain::Refusal, usecase::Error};
use stampede_status::{Problem, Reason};
use tonic::Status;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refused(refusal),
            Error::Db(error) => error.into(),
            Error::Unconfirmed(error) => unconfirmed(&error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

/// Returns the problem for the caller of a watch. It names an unknown event by its index in `requested`.
pub fn watch_problem(error: Error, requested: &[String]) -> Problem {
    let index = match &error {
        Error::Refused(Refusal::NotFound(id)) => requested.iter().position(|text| *text == id.to_string()),
        _ => None,
    };
    let problem = Problem::from(error);
    match index {
        Some(index) => problem.field(format!("event_ids[{index}]")),
        None => problem,
    }
}

/// The change and its message are stored, so a repeat changes nothing and only calls inventory again.
fn unconfirmed(error: &Unconfirmed) -> Problem {
    let detail = "the event is changed, but inventory has not confirmed it: send the same again until it is answered";
    Problem::new(Reason::Unavailable, detail).internal(error)
}

fn refused(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    match refusal {
        Refusal::Invalid(error) => error.into(),
        Refusal::NotFound(_) => Problem::new(Reason::EventNotFound, detail).field("event_id"),
        Refusal::RequestIdReused => Problem::new(Reason::RequestIdReused, detail).field("request_id"),
        Refusal::NotScheduled { state } => {
            Problem::new(Reason::EventNotScheduled, detail).field("event_id").meta("state", state)
        }
        Refusal::VersionMismatch { version, .. } => {
            Problem::new(Reason::VersionMismatch, detail).field("expected_version").meta("version", version)
        }
        Refusal::TooLate { .. } => Problem::new(Reason::RescheduleTooLate, detail).field("event_id"),
        // These transitions are timed, and never requested by a caller.
        Refusal::NotDue { .. } => Problem::internal_error(detail),
    }
}
