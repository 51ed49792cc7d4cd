//! The use cases, one file each. A use case opens the transaction, calls the domain for decisions and the store for
//! SQL; it knows neither SQL nor the contracts.

mod advance_events;
mod arm_timers;
mod cancel_event;
mod create_event;
mod error;
mod find_events;
mod note_seen;
mod reschedule_event;
mod schedule_changes;
mod unreadable;
mod watch_events;

pub use advance_events::AdvanceEvents;
pub use arm_timers::ArmTimers;
pub use cancel_event::CancelEvent;
pub use create_event::CreateEvent;
pub use error::Error;
pub use find_events::FindEvents;
pub use note_seen::{NoteSeen, Seen, SeenQueue};
pub use reschedule_event::RescheduleEvent;
pub use schedule_changes::ScheduleChanges;
pub use watch_events::WatchEvents;

use unreadable::readable;
