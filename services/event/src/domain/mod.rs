//! Sale events as values: what they are, how time and operators change them, what is told of it. No I/O, no clock.

mod error;
mod event;
mod new_event;
mod outgoing;
mod schedule;

pub use error::Refusal;
pub use event::{Event, Gift, Item};
pub use new_event::{NewEvent, NewItem};
pub use outgoing::OutgoingMessage;
pub use schedule::{Advanced, Due, Schedule, State, Times};
