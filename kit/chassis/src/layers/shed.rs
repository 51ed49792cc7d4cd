//! A bound on what is under way. What is over it is refused at once: a queue would only make all of it late.

use stampede_status::{Problem, Reason};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Refuses requests over a bound.
#[derive(Clone)]
pub struct Shed {
    permits: Arc<Semaphore>,
}

impl Shed {
    /// At most `requests` under way.
    pub fn over(requests: usize) -> Shed {
        Shed { permits: Arc::new(Semaphore::new(requests)) }
    }

    /// Returns a permit, and counts the request for as long as that is held. Fails with OVERLOADED over the bound.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let overloaded = |_| Problem::new(Reason::Overloaded, "too many requests are under way");
        self.permits.clone().try_acquire_owned().map_err(overloaded)
    }
}
