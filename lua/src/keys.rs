//! The names of all keys. Every key used together carries the same hash tag, so a cluster keeps them together.

use stampede_vocab::{CampaignId, EventId, ItemId};
use std::fmt::Display;

/// The two transitions of an event that time brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The event opens.
    Opens,
    /// The event closes.
    Closes,
}

impl Timer {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Opens => "opens",
            Self::Closes => "closes",
        }
    }
}

/// Builds key names under one prefix.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Key names under `prefix`, which may be empty.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The hash that all items of the event share: window and arrivals.
    pub fn stock_event(&self, event: EventId) -> String {
        format!("{}stock:{{{event}}}", self.prefix)
    }

    /// One item's numbers.
    pub fn stock_item(&self, event: EventId, item: ItemId) -> String {
        format!("{}stock:{{{event}}}:{item}", self.prefix)
    }

    /// The holds of the event that are not in the ledger yet.
    pub fn stock_holds(&self, event: EventId) -> String {
        format!("{}stock:{{{event}}}:holds", self.prefix)
    }

    /// Progress of the pass that compares all events with the ledger.
    pub fn stock_pass(&self) -> String {
        format!("{}stock:pass", self.prefix)
    }

    /// A campaign's numbers and ranks.
    pub fn coupon_campaign(&self, campaign: CampaignId) -> String {
        format!("{}coupon:{{{campaign}}}", self.prefix)
    }

    /// The claims of the campaign that are ranked and not stored yet.
    pub fn coupon_pending(&self, campaign: CampaignId) -> String {
        format!("{}coupon:{{{campaign}}}:pending", self.prefix)
    }

    /// Expires when the event is to open.
    pub fn event_opens(&self, event: EventId) -> String {
        self.event_timer(event, Timer::Opens)
    }

    /// Expires when the event is to close.
    pub fn event_closes(&self, event: EventId) -> String {
        self.event_timer(event, Timer::Closes)
    }

    /// Reads the name of an expired key; `None` if it is not one of ours.
    pub fn parse_event_timer(&self, key: &str) -> Option<(EventId, Timer)> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix("event:{")?;
        let (event, timer) = rest.split_once("}:")?;
        let timer = [Timer::Opens, Timer::Closes].into_iter().find(|known| known.as_str() == timer)?;
        Some((event.parse().ok()?, timer))
    }

    /// A family of refresh tokens: all that came from one first token.
    pub fn gate_family(&self, family: &str) -> String {
        format!("{}gate:{{{family}}}", self.prefix)
    }

    /// The epoch of all refresh tokens.
    pub fn gate_epoch(&self) -> String {
        format!("{}gate:epoch", self.prefix)
    }

    /// The rate-limit bucket of one act. `subject` is a user, a login, an order of a user or a network.
    pub fn gate_bucket(&self, subject: impl Display, act: &str) -> String {
        format!("{}gate:{{{subject}}}:{act}", self.prefix)
    }

    /// The open orders of a user or a network.
    pub fn gate_open_orders(&self, subject: impl Display) -> String {
        format!("{}gate:{{{subject}}}:open", self.prefix)
    }

    /// The logins whose access tokens are refused, by when those end.
    pub fn gate_revoked(&self) -> String {
        format!("{}gate:{{revoked}}", self.prefix)
    }

    /// The same by when they were revoked.
    pub fn gate_revoked_since(&self) -> String {
        format!("{}gate:{{revoked}}:since", self.prefix)
    }

    fn event_timer(&self, event: EventId, timer: Timer) -> String {
        format!("{}event:{{{event}}}:{}", self.prefix, timer.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_key_reads_back_and_a_foreign_key_does_not() {
        let keys = Keys::new("t:");
        let event: EventId = "evt_0000000000000000000000001a".parse().unwrap();
        assert_eq!(keys.parse_event_timer(&keys.event_opens(event)), Some((event, Timer::Opens)));
        assert_eq!(keys.parse_event_timer(&keys.event_closes(event)), Some((event, Timer::Closes)));
        for foreign in
            ["event:{evt_0000000000000000000000001a}:opens", "t:event:{x}:opens", "t:event:{}:", "t:session:1"]
        {
            assert_eq!(keys.parse_event_timer(foreign), None, "{foreign}");
        }
    }
}
