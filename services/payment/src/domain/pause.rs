//! The back-off between requests to the provider about one charge or refund.

use stampede_vocab::PaymentId;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Part of its age that what is pending for long is left alone, and the longest.
const PART: u32 = 16;
const LONGEST_RARE: Duration = Duration::from_secs(3_600);

/// Returns the wait after so many tries. It doubles up to half a minute, with jitter from the id, so that what failed
/// together is not retried together. There is no last try: money is never given up.
pub fn pause(payment_id: PaymentId, tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(10);
    spread(payment_id, FIRST.saturating_mul(1 << doublings).min(LONGEST))
}

/// Returns the wait for what the provider has said to be pending for so long. It grows with that up to an hour, with
/// the same jitter.
pub fn rare_pause(payment_id: PaymentId, age: Duration) -> Duration {
    spread(payment_id, (age / PART).clamp(FIRST, LONGEST_RARE))
}

fn spread(payment_id: PaymentId, whole: Duration) -> Duration {
    let spread = payment_id.as_bytes().last().copied().unwrap_or(0);
    whole / 2 + whole / 2 * u32::from(spread) / 255
}
