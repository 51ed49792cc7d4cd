//! Where a look at a queue begins. A queue is an index by when its rows are due, and it keeps the places of what was
//! done for as long as somebody reads as of before: a look from its beginning walks over all of them. So most looks
//! begin where the last one at all of it has ended.

use stampede_vocab::Timestamp;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Time between two looks at all of a queue.
const WHOLE_LOOK: Duration = Duration::from_secs(5);
/// How long before such a look a row may be due that was not there: its transaction had not ended, somebody had it
/// locked, or the clock of whoever wrote it is behind. What was due still earlier waits for the next look at all.
const LATE: Duration = Duration::from_secs(10);

/// Up to when a queue was worked off. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks(Arc<Mutex<Option<(Instant, Timestamp)>>>);

/// One look.
#[derive(Debug)]
pub(super) struct Look {
    started: Instant,
    is_whole: bool,
    /// It finds what is due from then on.
    pub(super) from: Timestamp,
}

impl Looks {
    /// Begins a look.
    pub(super) fn begin(&self) -> Look {
        let worked_off = self.lock().filter(|(at, _)| at.elapsed() < WHOLE_LOOK);
        let from = worked_off.map_or(Timestamp::from_micros(0), |(_, now)| now.minus(LATE));
        Look { started: Instant::now(), is_whole: worked_off.is_none(), from }
    }

    /// Takes note that a look has left nothing that was due at `now`.
    pub(super) fn left_nothing(&self, look: &Look, now: Timestamp) {
        if look.is_whole {
            *self.lock() = Some((look.started, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn a_look_begins_where_the_last_one_at_all_has_ended_and_there_is_one_every_few_seconds() {
        let (looks, beginning) = (Looks::default(), Timestamp::from_micros(0));
        let first = looks.begin();
        assert_eq!((first.from, looks.begin().from), (beginning, beginning), "the first has not ended");
        looks.left_nothing(&first, NOW);
        advance(WHOLE_LOOK / 2).await;
        let next = looks.begin();
        assert_eq!(next.from, NOW.minus(LATE));
        // One that has not seen all puts the next look at all off for nobody.
        looks.left_nothing(&next, NOW.plus(LATE));
        assert_eq!(looks.begin().from, NOW.minus(LATE));
        advance(WHOLE_LOOK / 2).await;
        assert_eq!(looks.begin().from, beginning);
    }
}
