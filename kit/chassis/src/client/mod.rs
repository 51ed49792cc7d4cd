//! Calls to other services: balanced over the replicas that are ready, with the context of the call that is being
//! handled.

mod call_error;
mod discover;
mod mesh;
mod probe;
mod propagate;
mod replicas;
mod retry;
#[cfg(test)]
mod tests;

pub use mesh::{MeshChannel, ReadOnly};
pub use retry::retry_unavailable;
