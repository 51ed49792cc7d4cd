//! A sale event with its items.

use crate::domain::{OutgoingMessage, Schedule};
use stampede_vocab::{EventId, ItemId, Money, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Name shown to buyers.
    pub name: String,
    pub schedule: Schedule,
    /// Items on offer, in the order given at creation.
    pub items: Vec<Item>,
    pub created_at: Timestamp,
}

impl Event {
    pub fn id(&self) -> EventId {
        self.schedule.event_id
    }

    /// Returns the message about its creation or new times, with all that inventory needs to stage it.
    pub fn scheduled(&self) -> OutgoingMessage {
        let Schedule { event_id, version, times, .. } = self.schedule;
        OutgoingMessage::Scheduled { event_id, version, times, items: self.items.clone() }
    }
}

/// One thing on sale in one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: ItemId,
    /// Title shown to buyers.
    pub title: String,
    /// Special price of one unit.
    pub unit_price: Money,
    pub total_units: i32,
    pub limit_per_buyer: i32,
    /// A limited gift, if there is one.
    pub gift: Option<Gift>,
}

/// A limited gift that comes with an item while there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gift {
    /// Title shown to buyers.
    pub title: String,
    pub total_units: i32,
}
