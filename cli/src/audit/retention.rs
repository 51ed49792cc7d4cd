//! Retention: an audit long after a sale must not report purged messages as lost.
//!
//! The outboxes purge by age, Kafka by its own retention. A purged row cannot be distinguished from a lost one, so
//! messages that are older than the shorter of them are not compared, and the audit notes that.

use super::{sources::Sources, verdict::Audit};
use stampede_vocab::Timestamp;
use std::time::Duration;

/// Relays keep sent messages for a day; a little less here, since clocks differ.
const OUTBOX_KEPT: Duration = Duration::from_secs(24 * 60 * 60 - 10 * 60);

/// The time since which messages are complete.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// The outboxes have every message that was written since then.
    pub outboxes_since: Timestamp,
}

impl Retention {
    pub fn now() -> Self {
        Self { outboxes_since: Timestamp::now().minus(OUTBOX_KEPT) }
    }

    /// Records how much is older than the retention of the outboxes.
    pub async fn note(self, sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
        let before_us = self.outboxes_since.micros();
        let older = sources
            .count(&format!(
                "SELECT (SELECT COUNT(*) FROM {{event}}.events WHERE updated_us < {before_us}) \
                 + (SELECT COUNT(*) FROM {{coupon}}.coupons WHERE updated_us < {before_us}) \
                 + (SELECT COUNT(*) FROM {{order}}.orders WHERE updated_us < {before_us})"
            ))
            .await?;
        if older > 0 {
            audit.leave_out(format!(
                "messages of {older} events, coupons and orders that last changed before {}: outboxes keep what was sent \
                 for a day",
                readable(self.outboxes_since)
            ));
        }
        Ok(())
    }
}

/// Returns a time for people.
pub fn readable(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map_or_else(|_| at.micros().to_string(), |at| format!("{at:.0}"))
}
