//! Sale events as values: their fields, their transitions, and the messages about them. No I/O, no clock.

mod error;
mod event;
mod new_event;
mod outgoing;
mod schedule;

pub use error::Refusal;
pub use event::{Event, Gift, Item};
pub use new_event::{NewEvent, NewItem};
pub use outgoing::OutgoingMessage;
pub use schedule::{Advanced, Due, PaidOrders, Schedule, State, Times};
