//! The back-off between requests to the provider about one charge or refund.

use stampede_vocab::PaymentId;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Returns the wait after so many tries. It doubles up to half a minute, with jitter from the id, so that what failed
/// together is not retried together. There is no last try: money is never given up.
pub fn pause(payment_id: PaymentId, tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(10);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let spread = payment_id.as_bytes().last().copied().unwrap_or(0);
    whole / 2 + whole / 2 * u32::from(spread) / 255
}
