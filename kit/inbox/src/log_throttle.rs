//! Throttles the log lines of a lasting failure: one at once, and then one a minute.

use std::time::Duration;
use tokio::time::Instant;

/// Time between two log lines about the same failure.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What to log of a failure now.
#[derive(Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// It has just started.
    Started,
    /// It has lasted for this long, and was not logged for a minute.
    Ongoing(Duration),
    /// Nothing: it was logged less than a minute ago.
    Suppressed,
}

/// The log lines of one kind of failure.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// When the failure started, and when it was last logged; `None` without a failure.
    logged: Option<(Instant, Instant)>,
}

impl LogThrottle {
    /// Notes a failure. Returns what to log of it.
    pub fn failure(&mut self) -> LogEvent {
        let now = Instant::now();
        match &mut self.logged {
            None => {
                self.logged = Some((now, now));
                LogEvent::Started
            }
            Some((begun, last)) if now.duration_since(*last) >= LOG_INTERVAL => {
                *last = now;
                LogEvent::Ongoing(now.duration_since(*begun))
            }
            Some(_) => LogEvent::Suppressed,
        }
    }

    /// Notes that the failure is over.
    pub fn recovered(&mut self) {
        self.logged = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_is_logged_once_a_minute() {
        let mut throttle = LogThrottle::default();
        assert_eq!(throttle.failure(), LogEvent::Started);
        let mut logged = Vec::new();
        for second in 1..=130 {
            advance(Duration::from_secs(1)).await;
            if throttle.failure() != LogEvent::Suppressed {
                logged.push(second);
            }
        }
        assert_eq!(logged, [60, 120]);
        throttle.recovered();
        assert_eq!(throttle.failure(), LogEvent::Started);
    }
}
