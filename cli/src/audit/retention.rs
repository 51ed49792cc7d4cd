//! Retention: an audit long after a sale must not take for lost what was purged.
//!
//! The outboxes and inboxes purge by age, Kafka by its own retention. A purged row cannot be
//! distinguished from a lost one, so what is older than the shortest of them is not compared, and the audit says so.

use super::{sources::Sources, verdict::Audit};
use stampede_proto::messages;
use stampede_vocab::{Service, Timestamp};
use std::time::Duration;

/// Relays keep what they have sent for a day; a little less, since clocks differ.
const OUTBOX_KEPT: Duration = Duration::from_secs(24 * 60 * 60 - 10 * 60);
/// Consumers keep what took effect for a week; the same.
const INBOX_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60 - 10 * 60);

/// From when on everything is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// An outbox has every message that was sent since then.
    pub outboxes_since: Timestamp,
    /// An inbox has every message that was applied since then.
    pub inboxes_since: Timestamp,
}

impl Retention {
    /// As of now.
    pub fn now() -> Self {
        let now = Timestamp::now();
        Self { outboxes_since: now.minus(OUTBOX_KEPT), inboxes_since: now.minus(INBOX_KEPT) }
    }

    /// `FROM` and `WHERE` of the messages `o` of `writer` that `reader` takes and that are not in its inbox, as far
    /// back as inboxes reach.
    pub fn unread(self, writer: Service, reader: Service) -> String {
        let types: Vec<_> = messages::taken(reader, writer).iter().map(|name| format!("'{name}'")).collect();
        format!(
            "FROM {{{writer}}}.outbox o LEFT JOIN {{{reader}}}.inbox i ON i.source = '{}' AND i.message_id = o.id \
             WHERE i.message_id IS NULL AND o.created_us > {} AND o.type IN ({})",
            writer.source(),
            self.inboxes_since.micros(),
            types.join(", ")
        )
    }

    /// Says what is older than the outboxes reach.
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

/// A time for people.
pub fn readable(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map_or_else(|_| at.micros().to_string(), |at| format!("{at:.0}"))
}
