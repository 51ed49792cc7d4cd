//! The workers that open and close events: the listener is prompt, the sweep is reliable. Both call the same use case.

mod listener;
mod sweep;

pub use listener::ExpiryListener;
pub use sweep::DueSweep;
