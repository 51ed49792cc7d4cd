//! Each transition of an event was published exactly once.

use super::outbox::Written;
use crate::audit::{retention::Retention, sources::Sources, verdict::Audit};
use sqlx::Row;
use stampede_proto::messages;
use stampede_vocab::{EventId, Timestamp};
use std::collections::HashMap;

/// The messages of an event's transitions, and when each event went through it.
const TRANSITIONS: [(&str, &str); 3] = [
    ("EventOpened", "SELECT id, opened_at_us FROM {event}.events WHERE opened_at_us IS NOT NULL"),
    ("EventClosed", "SELECT id, closed_at_us FROM {event}.events WHERE state = 'CLOSED'"),
    ("EventCancelled", "SELECT id, closed_at_us FROM {event}.events WHERE state = 'CANCELLED'"),
];

/// How often each transition of each event was published.
pub struct Published([HashMap<String, u32>; TRANSITIONS.len()]);

impl Published {
    /// Begins with the events as they are before any message is read: one that moves while messages are read may be
    /// published behind what was read. Of old transitions only that they were not published twice is compared, since the
    /// message may be purged.
    pub async fn expected(sources: &Sources, retention: Retention) -> anyhow::Result<Self> {
        let mut published = Self(Default::default());
        for ((_, moved), counts) in TRANSITIONS.into_iter().zip(&mut published.0) {
            for row in sources.rows(moved).await? {
                let event = EventId::try_from_bytes(row.try_get(0)?)?.to_string();
                let moved_at = Timestamp::from_micros(row.try_get(1)?);
                if moved_at >= retention.outboxes_since {
                    counts.insert(event, 0);
                }
            }
        }
        Ok(published)
    }

    /// Counts a message of the event service.
    pub fn count(&mut self, message: &Written) {
        let name = messages::name(&message.content.message_type);
        let transition = TRANSITIONS.iter().position(|(published, _)| Some(*published) == name);
        if let Some(counts) = transition.and_then(|transition| self.0.get_mut(transition)) {
            *counts.entry(message.content.key.clone()).or_default() += 1;
        }
    }

    /// Names what was not published, or more than once.
    pub fn compare(self, audit: &mut Audit) {
        for ((message, _), counts) in TRANSITIONS.into_iter().zip(self.0) {
            let wrong = counts.into_iter().filter(|(_, count)| *count != 1);
            let named = wrong.map(|(event, count)| format!("{event} ({count} messages)")).collect();
            audit.breach(6, format!("an event was not published exactly once as {message}"), named);
        }
    }
}
