//! Leaves out events that cannot be read, and logs each of them once a minute: sweeps and watches meet them in every
//! round.

use stampede_db::DbError;
use stampede_service::OnceAMinute;
use stampede_vocab::EventId;

static LINES: OnceAMinute<EventId> = OnceAMinute::new();

/// Returns what was read of the event, or logs why it cannot be read, so that it is left out.
pub(super) fn readable<T>(id: EventId, read: Result<T, DbError>) -> Option<T> {
    let log = |error: &DbError| {
        if LINES.is_due(id) {
            tracing::error!(event.id = %id, error.cause = %error, "event cannot be read");
        }
    };
    read.inspect_err(log).ok()
}
