//! Waits for a server at start-up.

use anyhow::bail;
use stampede_vocab::backoff;
use std::{fmt::Display, future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Time between two log lines of one wait.
const REMINDER: Duration = Duration::from_secs(5);

/// Retries `attempt` until it succeeds or `deadline` has passed. Logs what it waits for and why.
pub async fn wait_for<T, E, F, Fut>(what: &str, deadline: Duration, mut attempt: F) -> anyhow::Result<T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let give_up = Instant::now() + deadline;
    let mut reminded = None;
    let mut last = "no answer".to_owned();
    for tries in 0.. {
        match timeout_at(give_up, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => break,
        }
        if reminded.is_none_or(|at: Instant| at.elapsed() >= REMINDER) {
            reminded = Some(Instant::now());
            tracing::warn!(server.name = what, error.cause = last, "waiting for a server");
        }
        if timeout_at(give_up, sleep(backoff(tries))).await.is_err() {
            break;
        }
    }
    bail!("{what} was not there within {} s: {last}", deadline.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_what_was_waited_for() {
        let mut tries = 0;
        let value = wait_for("MySQL", Duration::from_secs(60), || {
            tries += 1;
            let answer = if tries < 9 { Err("connection refused") } else { Ok(tries) };
            async move { answer }
        });
        assert_eq!(value.await.unwrap(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end_and_says_why() {
        let started = Instant::now();
        let refused = async || Err::<(), _>("connection refused");
        let error = wait_for("MySQL", Duration::from_secs(3), refused).await.unwrap_err();
        assert_eq!(error.to_string(), "MySQL was not there within 3 s: connection refused");
        assert!(started.elapsed() <= Duration::from_secs(4));
        let hung = wait_for("MySQL", Duration::from_secs(3), std::future::pending::<Result<(), &str>>).await;
        assert!(hung.unwrap_err().to_string().ends_with("no answer"));
    }
}
