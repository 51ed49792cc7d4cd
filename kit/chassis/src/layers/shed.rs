//! Load shedding: refuses requests over a limit at once, since a queue would only make all of them late.

use stampede_status::{Problem, Reason};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits concurrent requests.
#[derive(Clone)]
pub struct Shed {
    permits: Arc<Semaphore>,
}

impl Shed {
    /// Allows at most this many concurrent requests.
    pub fn over(requests: usize) -> Shed {
        Shed { permits: Arc::new(Semaphore::new(requests)) }
    }

    /// Returns a permit for a request. Fails with OVERLOADED if none is free.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let overloaded = |_| Problem::new(Reason::Overloaded, "too many requests are under way");
        self.permits.clone().try_acquire_owned().map_err(overloaded)
    }
}
