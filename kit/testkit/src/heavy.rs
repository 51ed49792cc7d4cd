//! Tests that load the whole machine take turns.

use std::{sync::LazyLock, thread};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A permit for each core.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));

/// The turn of a test. It ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    _permit: SemaphorePermit<'static>,
}

/// Waits until fewer tests of this binary than there are cores load the machine. To be called once, first of all: a
/// crowd or a fault beside several others meets time-outs of an overloaded machine, which are not under test.
pub async fn heavy() -> Turn {
    Turn { _permit: TURNS.acquire().await.expect("it is never closed") }
}
