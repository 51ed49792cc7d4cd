//! The workers that open and close events: the listener is prompt, the sweep is reliable. Both call the same use case.
//! A third records when the transitions could be seen.

mod listener;
mod seen;
mod sweep;

pub use listener::ExpiryListener;
pub use seen::note_seen;
pub use sweep::DueSweep;
