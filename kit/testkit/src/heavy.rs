//! Limits how many tests that load the whole machine run at the same time.

use std::{sync::LazyLock, thread};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A permit for each core.
static PERMITS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));

/// The permit of a heavy test. Released when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct HeavyPermit {
    _permit: SemaphorePermit<'static>,
}

/// Waits for a permit: at most as many such tests of this binary run at once as there are cores. To be called once, at
/// the start of a test: on an overloaded machine it would meet time-outs that are not under test.
pub async fn heavy() -> HeavyPermit {
    HeavyPermit { _permit: PERMITS.acquire().await.expect("it is never closed") }
}
