//! What makes events open and close by themselves: the listener is prompt, the sweep is sure. Both call the same use
//! case.

mod listener;
mod sweep;

pub use listener::ExpiryListener;
pub use sweep::DueSweep;
