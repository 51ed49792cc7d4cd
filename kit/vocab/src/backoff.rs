//! Exponential back-off with jitter.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(2);

/// Returns the delay before retry number `attempt` (0 = the first one): it doubles from 10 ms up to 2 s, less a random
/// part of up to half, so that calls that failed together are not retried together.
pub fn backoff(attempt: u32) -> Duration {
    backoff_from(SHORTEST, attempt)
}

/// Returns the same delay, but doubling from `shortest`: for transient conflicts, such as the lock of a deadlock's
/// winner.
pub fn backoff_from(shortest: Duration, attempt: u32) -> Duration {
    backoff_within(shortest, LONGEST, attempt)
}

/// Returns the same delay, but doubling from `shortest` up to `longest`: for background work, such as the wait for a
/// server that is away.
pub fn backoff_within(shortest: Duration, longest: Duration, attempt: u32) -> Duration {
    let full = shortest.saturating_mul(2_u32.saturating_pow(attempt)).min(longest);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_has_jitter_and_is_capped() {
        for attempt in [0, 1, 5, 31, u32::MAX] {
            let full = SHORTEST.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST);
            for _ in 0..100 {
                let wait = backoff(attempt);
                assert!(wait >= full / 2 && wait <= full, "{attempt}: {wait:?}");
            }
        }
        let long = backoff_within(SHORTEST, 10 * LONGEST, u32::MAX);
        assert!(long >= 5 * LONGEST && long <= 10 * LONGEST, "{long:?}");
        let first = backoff(8);
        assert!((0..100).any(|_| backoff(8) != first));
    }
}
