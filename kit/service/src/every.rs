//! The loop of a periodic worker.

use std::{fmt::Display, future::Future, time::Duration};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// Runs `round` at once and then every `period`, until `stop`. A round that fails, or is not done within `time_out`, is
/// logged; the next one tries again. A stop waits for the round under way.
pub async fn every<F, Fut, E>(
    name: &'static str,
    period: Duration,
    time_out: Duration,
    mut round: F,
    stop: CancellationToken,
) where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut ticks = interval(period);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Not cancelled by the stop: what the round commits must be there before the last round of the relay.
        match timeout(time_out, round()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(worker.name = name, error.cause = format!("{error:#}"), "round failed, trying again");
            }
            Err(_) => {
                tracing::warn!(
                    worker.name = name,
                    worker.time_out_ms = time_out.as_millis(),
                    "round took too long, trying again"
                );
            }
        }
        // The period counts from the end of the round, so that a slow one is not followed at once.
        ticks.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };
    use tokio::time::{Instant, sleep};

    const PERIOD: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_or_hangs_is_followed_by_the_next() {
        let (stop, rounds) = (CancellationToken::new(), AtomicU32::new(0));
        let round = || {
            let number = rounds.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 => Err("no such table"),
                    1 => pending().await,
                    _ => Ok(()),
                }
            }
        };
        let work = every("test", PERIOD, 2 * PERIOD, round, stop.clone());
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
            let (stop, finished) = (CancellationToken::new(), AtomicU32::new(0));
            let round = async || {
                sleep(lasts).await;
                finished.fetch_add(1, Ordering::Relaxed);
                Ok::<_, &str>(())
            };
            let started = Instant::now();
            tokio::join!(every("test", PERIOD, 5 * PERIOD, round, stop.clone()), async {
                sleep(2 * PERIOD).await;
                stop.cancel();
            });
            assert_eq!((started.elapsed(), finished.into_inner()), (ended, u32::from(lasts == ended)));
        }
    }
}
