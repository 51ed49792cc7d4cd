//! The back-off between requests to the provider about one charge or refund.

use stampede_vocab::PaymentId;
use std::time::Duration;

const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The back-off of a long pending request is its age divided by this, up to the longest.
const AGE_DIVISOR: u32 = 16;
const MAX_SLOW_BACKOFF: Duration = Duration::from_secs(3_600);

/// Returns the back-off after so many tries. It doubles up to half a minute, with jitter from the id, so that requests
/// that failed together are not retried together. There is no last try: money is never given up.
pub fn backoff(payment_id: PaymentId, tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(10);
    with_jitter(payment_id, MIN_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF))
}

/// Returns the back-off of a request that has been pending for so long. It grows with the age up to an hour, with the
/// same jitter.
pub fn slow_backoff(payment_id: PaymentId, age: Duration) -> Duration {
    with_jitter(payment_id, (age / AGE_DIVISOR).clamp(MIN_BACKOFF, MAX_SLOW_BACKOFF))
}

fn with_jitter(payment_id: PaymentId, whole: Duration) -> Duration {
    let jitter = payment_id.as_bytes().last().copied().unwrap_or(0);
    whole / 2 + whole / 2 * u32::from(jitter) / 255
}
