//! Leaves out events whose stock cannot be read, and logs each of them once a minute: rounds and watches meet them all
//! the time.

use stampede_db::DbError;
use stampede_service::OnceAMinute;
use stampede_vocab::EventId;

static LINES: OnceAMinute<EventId> = OnceAMinute::new();

/// Returns what was read of the event, or logs why it cannot be read, so that it is left out.
pub(super) fn readable<T>((event, read): (EventId, Result<T, DbError>)) -> Option<T> {
    let log = |error: &DbError| {
        if LINES.is_due(event) {
            tracing::error!(event.id = %event, error.cause = %error, "the stock of an event could not be read");
        }
    };
    read.inspect_err(log).ok()
}
