//! Turns at the script. Redis runs one script at a time, so calls that come faster than it takes them queue somewhere:
//! here, for a moment, and not for seconds at the pool of connections.

use stampede_batch::BatchError;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Calls of the script under way at a time: as many as there are connections. Who asks Redis for something else then
/// finds a connection within a script or two.
const AT_A_TIME: usize = 8;
/// Longest wait for a turn. Who waits longer is one of more than can be answered.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Lets calls of the script through in the order in which they came. Clones share the turns.
#[derive(Clone)]
pub(super) struct ScriptTurns {
    free: Arc<Semaphore>,
}

impl ScriptTurns {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Waits for a turn, which lasts until what is returned is dropped. Fails as [`BatchError::Overloaded`] if there is
    /// none within a quarter of a second.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>, BatchError> {
        let turn = timeout(LONGEST_WAIT, self.free.acquire()).await;
        turn.map_err(|_| BatchError::Overloaded)?.map_err(|_| BatchError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn who_would_wait_too_long_is_refused_and_the_next_one_is_not() {
        let turns = ScriptTurns::new();
        let mut taken = Vec::new();
        for _ in 0..AT_A_TIME {
            taken.push(turns.take().await.expect("a turn is free"));
        }
        let started = Instant::now();
        assert_eq!(turns.take().await.err(), Some(BatchError::Overloaded));
        assert!(started.elapsed() < 2 * LONGEST_WAIT, "{:?}", started.elapsed());
        taken.pop();
        assert!(turns.take().await.is_ok());
    }
}
