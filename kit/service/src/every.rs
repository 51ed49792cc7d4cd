//! The loop of a periodic worker.

use crate::Worker;
use std::{fmt::Display, future::Future, time::Duration};

/// Runs a round every period. A failed round needs no retry: the next one covers the same rows.
pub struct Every<F> {
    /// Time from the end of a round to the next, so that a slow one is not followed at once.
    pub period: Duration,
    /// One round.
    pub round: F,
}

impl<F, Fut, E> Worker for Every<F>
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    type Error = E;

    async fn round(&mut self) -> Result<Duration, E> {
        (self.round)().await.map(|()| self.period)
    }

    fn pause_after_failure(&self, _failures: u32) -> Duration {
        self.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work;
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    const PERIOD: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_or_hangs_is_followed_by_the_next() {
        let (stop, rounds) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let counted = rounds.clone();
        let round = move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 => Err("no such table"),
                    1 => pending().await,
                    _ => Ok(()),
                }
            }
        };
        let work = work("test", 2 * PERIOD, Every { period: PERIOD, round }, stop.clone());
        tokio::join!(work, async {
            sleep(PERIOD / 2).await;
            assert_eq!(rounds.load(Ordering::Relaxed), 1, "the first is at once");
            sleep(4 * PERIOD).await;
            stop.cancel();
        });
        // At 0, 1 (until 3), then 4 s: a period after the one that hung.
        assert_eq!(rounds.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_round_under_way_and_no_longer_than_its_time_out() {
        for (lasts, ended) in [(3 * PERIOD, 3 * PERIOD), (60 * PERIOD, 5 * PERIOD)] {
            let (stop, finished) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
            let counted = finished.clone();
            let round = move || {
                let counted = counted.clone();
                async move {
                    sleep(lasts).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, &str>(())
                }
            };
            let started = Instant::now();
            tokio::join!(work("test", 5 * PERIOD, Every { period: PERIOD, round }, stop.clone()), async {
                sleep(2 * PERIOD).await;
                stop.cancel();
            });
            assert_eq!((started.elapsed(), finished.load(Ordering::Relaxed)), (ended, u32::from(lasts == ended)));
        }
    }
}
