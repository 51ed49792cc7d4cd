//! The one table from what went wrong to what the caller is told.

use crate::{domain::Refusal, usecase::Error};
use stampede_status::{Problem, Reason};
use tonic::Status;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refused(refusal),
            Error::Db(error) => error.into(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

/// What the caller of a watch is told: an unknown event is named by its place in `asked`.
pub fn watch_problem(error: Error, asked: &[String]) -> Problem {
    let place = match &error {
        Error::Refused(Refusal::NotFound(id)) => asked.iter().position(|text| *text == id.to_string()),
        _ => None,
    };
    let problem = Problem::from(error);
    match place {
        Some(index) => problem.field(format!("event_ids[{index}]")),
        None => problem,
    }
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
        Refusal::TooLate { .. } => Problem::new(Reason::RescheduleTooLate, detail).field("event_id"),
        Refusal::Closed { state } => Problem::new(Reason::EventClosed, detail).field("event_id").meta("state", state),
        // Time asks for these transitions, never a caller.
        Refusal::NotDue { .. } => Problem::internal_error(detail),
    }
}
