//! Checks that each transition of an event was published exactly once.

use super::outbox::Written;
use crate::audit::{retention::Retention, sources::Sources, verdict::Audit};
use prost::{Message, Name};
use sqlx::Row;
use stampede_proto::{
    message::v1::{EventCancelled, EventClosed, EventOpened},
    messages,
};
use stampede_vocab::{EventId, Timestamp};
use std::collections::{HashMap, HashSet};

/// The messages of an event's transitions, and when each event went through it. Of an event that an earlier release has
/// cancelled after its close, when the close could be seen is all that is left of it.
const TRANSITIONS: [(&str, &str); 3] = [
    (EventOpened::NAME, "SELECT id, opened_at_us FROM {event}.events WHERE opened_at_us IS NOT NULL"),
    (
        EventClosed::NAME,
        "SELECT id, CAST(IF(state = 'CLOSED', closed_at_us, COALESCE(closed_before_cancel_us, closed_seen_us)) AS SIGNED) \
         FROM {event}.events WHERE state = 'CLOSED' OR COALESCE(closed_before_cancel_us, closed_seen_us) IS NOT NULL",
    ),
    (EventCancelled::NAME, "SELECT id, closed_at_us FROM {event}.events WHERE state = 'CANCELLED'"),
];

/// The number of publications of each transition of each event.
pub struct Published {
    counts: [HashMap<String, u32>; TRANSITIONS.len()],
    /// Events that were published as cancelled with refunds.
    refunds: HashSet<String>,
}

impl Published {
    /// Reads the present events before any message, since one that changes meanwhile may be published after the last
    /// message read. Old transitions are only checked for duplicates, since their messages may be purged.
    pub async fn expected(sources: &Sources, retention: Retention) -> anyhow::Result<Self> {
        let mut published = Self { counts: Default::default(), refunds: HashSet::new() };
        for ((_, moved), counts) in TRANSITIONS.into_iter().zip(&mut published.counts) {
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

    /// Counts a message of the event service. A cancellation may be published once more, to refund paid orders that
    /// were kept at first.
    pub fn count(&mut self, message: &Written) {
        let name = messages::name(&message.content.message_type);
        let transition = TRANSITIONS.iter().position(|(published, _)| Some(*published) == name);
        let adds_refunds = name == Some(EventCancelled::NAME) && self.adds_refunds(message);
        if let Some(counts) = transition.and_then(|transition| self.counts.get_mut(transition)) {
            let count = counts.entry(message.content.key.clone()).or_default();
            *count += u32::from(*count == 0 || !adds_refunds);
        }
    }

    /// Returns whether this is the first message that requests the refunds of a cancelled event.
    fn adds_refunds(&mut self, message: &Written) -> bool {
        let cancelled = EventCancelled::decode(message.payload.as_slice()).unwrap_or_default();
        cancelled.refund_paid_orders && self.refunds.insert(message.content.key.clone())
    }

    /// Names the transitions that were not published, or more than once.
    pub fn compare(self, audit: &mut Audit) {
        for ((message, _), counts) in TRANSITIONS.into_iter().zip(self.counts) {
            let wrong = counts.into_iter().filter(|(_, count)| *count != 1);
            let named = wrong.map(|(event, count)| format!("{event} ({count} messages)")).collect();
            audit.breach(6, format!("an event was not published exactly once as {message}"), named);
        }
    }
}
