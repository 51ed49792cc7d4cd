//! The loop of all workers: rounds with a timeout, logging, back-off and stop.

use stampede_vocab::backoff;
use std::{
    fmt::Display,
    future::{Future, pending, ready},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A worker that runs in rounds.
pub trait Worker: Send + 'static {
    /// Error of a round.
    type Error: Display + Send;

    /// Runs one round. Returns the longest wait for the next one. A round that takes too long is dropped at its
    /// `await`, and the next one starts afresh.
    fn round(&mut self) -> impl Future<Output = Result<Duration, Self::Error>> + Send;

    /// Waits for a wake-up that makes the next round early. Wake-ups may be lost.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }

    /// Acquires a resource for a round, such as a permit. Does not count as part of the round, and a stop ends it.
    fn acquire(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// Returns the wait after a round that failed or was not done in time, behind `failures` others in a row. No hint
    /// shortens it.
    fn pause_after_failure(&self, failures: u32) -> Duration {
        backoff(failures)
    }
}

/// Runs rounds until `stop`, the first one at once. Logs a round that fails or takes longer than `time_out`; the next
/// one tries again. A stop waits for the round under way.
pub async fn work<W: Worker>(name: &'static str, time_out: Duration, mut worker: W, stop: CancellationToken) {
    let mut failures = 0_u32;
    while stop.run_until_cancelled(worker.acquire()).await.is_some() {
        // A round under way is not cancelled: its commit must be there before the relay sends for the last time.
        if let Some(pause) = round(name, time_out, &mut worker).await {
            failures = 0;
            if !pause.is_zero() {
                stop.run_until_cancelled(wait_for_next(&mut worker, pause)).await;
            }
        } else {
            stop.run_until_cancelled(sleep(worker.pause_after_failure(failures))).await;
            failures = failures.saturating_add(1);
        }
    }
}

/// Waits for a wake-up, but no longer than `pause`.
async fn wait_for_next<W: Worker>(worker: &mut W, pause: Duration) {
    tokio::select! {
        () = worker.woken() => {}
        () = sleep(pause) => {}
    }
}

/// Runs a round with its timeout; `None` if it failed.
async fn round<W: Worker>(name: &'static str, time_out: Duration, worker: &mut W) -> Option<Duration> {
    match timeout(time_out, worker.round()).await {
        Ok(Ok(pause)) => return Some(pause),
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
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, sync::Arc};
    use tokio::{
        sync::{Notify, mpsc},
        time::Instant,
    };

    const PERIOD: Duration = Duration::from_secs(100);
    const TIME_OUT: Duration = Duration::from_secs(30);

    #[derive(Clone, Copy)]
    enum Round {
        Next(Duration),
        Fails,
        Hangs,
    }

    /// Plays the rounds of a script, then rests for a period after each; sends the instant at which each began.
    struct Script {
        rounds: VecDeque<Round>,
        woken: Arc<Notify>,
        began: mpsc::UnboundedSender<Instant>,
    }

    impl Worker for Script {
        type Error = &'static str;

        async fn round(&mut self) -> Result<Duration, &'static str> {
            let _ = self.began.send(Instant::now());
            match self.rounds.pop_front() {
                Some(Round::Next(pause)) => Ok(pause),
                Some(Round::Fails) => Err("no such table"),
                Some(Round::Hangs) => pending().await,
                None => Ok(PERIOD),
            }
        }

        async fn woken(&mut self) {
            self.woken.notified().await;
        }
    }

    /// When the rounds of `script` began, in seconds from the first; woken at these seconds, stopped at the last.
    async fn began<const N: usize>(script: [Round; N], woken_at: &[u64], stopped_at: u64) -> Vec<u64> {
        let (began, mut starts) = mpsc::unbounded_channel();
        let (woken, stop, started) = (Arc::new(Notify::new()), CancellationToken::new(), Instant::now());
        let script = Script { rounds: script.into(), woken: woken.clone(), began };
        tokio::join!(work("test", TIME_OUT, script, stop.clone()), async {
            for second in woken_at {
                tokio::time::sleep_until(started + Duration::from_secs(*second)).await;
                woken.notify_one();
            }
            tokio::time::sleep_until(started + Duration::from_secs(stopped_at)).await;
            stop.cancel();
        });
        let mut seconds = Vec::new();
        while let Some(at) = starts.recv().await {
            seconds.push(at.duration_since(started).as_secs());
        }
        seconds
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_says_when_the_next_one_is_due_and_a_hint_makes_it_earlier() {
        let script = [Round::Next(Duration::ZERO), Round::Next(Duration::from_secs(7)), Round::Next(PERIOD)];
        assert_eq!(began(script, &[], 20).await, [0, 0, 7]);
        assert_eq!(began(script, &[3, 50], 60).await, [0, 0, 3, 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_fails_or_hangs_is_tried_again_with_back_off() {
        assert_eq!(began([Round::Fails, Round::Hangs], &[], 60).await, [0, 0, 30]);
        let long = began([Round::Fails; 100], &[], 60).await.len();
        assert!((30..=70).contains(&long), "{long} rounds in a minute, of which the back-off bounds all but a few");
    }

    /// A worker that has nothing to do before it gets something, and never does.
    struct Idle;

    impl Worker for Idle {
        type Error = &'static str;

        async fn round(&mut self) -> Result<Duration, &'static str> {
            panic!("a round without what it needs")
        }

        async fn acquire(&mut self) {
            pending::<()>().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait_for_what_a_round_needs() {
        let stop = CancellationToken::new();
        tokio::join!(work("test", TIME_OUT, Idle, stop.clone()), async {
            sleep(2 * TIME_OUT).await;
            stop.cancel();
        });
    }
}
