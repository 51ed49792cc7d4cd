//! Cancelled events, and the progress of ending their orders.

use super::StateName;
use stampede_vocab::{EventId, Timestamp};

/// The cancellation of an event, as its message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancellation {
    pub event: EventId,
    /// Version of the event; the newest counts.
    pub event_version: i64,
    pub refund_paid: bool,
    pub cancel_time: Timestamp,
}

/// The orders of a cancelled event, counted by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cancelled or expired.
    pub ended: i32,
    /// Paid, and not to be refunded.
    pub kept: i32,
    pub refunding: i32,
    pub refunded: i32,
    /// Still to be ended, or being paid.
    pub remaining: i32,
}

/// The effect of a cancellation on an order in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    Cancel,
    Refund,
    /// Nothing now: it has ended, or is being paid.
    None,
}

impl Treatment {
    /// Returns the treatment of an order in this state.
    pub const fn of(state: StateName, refund_paid: bool) -> Self {
        match state {
            StateName::Pending | StateName::AwaitingPayment => Self::Cancel,
            StateName::Fulfilled if refund_paid => Self::Refund,
            _ => Self::None,
        }
    }
}

impl Tally {
    /// Counts an order in this state, which was not changed.
    pub const fn count(&mut self, state: StateName, refund_paid: bool) {
        let place = match state {
            StateName::Cancelled | StateName::Expired => &mut self.ended,
            StateName::Fulfilled if !refund_paid => &mut self.kept,
            StateName::Refunding => &mut self.refunding,
            StateName::Refunded => &mut self.refunded,
            StateName::Pending
            | StateName::AwaitingPayment
            | StateName::Paying
            | StateName::Paid
            | StateName::Fulfilled => &mut self.remaining,
        };
        *place = place.saturating_add(1);
    }

    /// Counts orders that were to be cancelled; those that were not remain.
    pub const fn count_cancelled(&mut self, wanted: i32, cancelled: i32) {
        self.ended = self.ended.saturating_add(cancelled);
        self.remaining = self.remaining.saturating_add(wanted.saturating_sub(cancelled));
    }

    /// Counts orders that were to be refunded; those whose refund was not requested remain.
    pub const fn count_refunding(&mut self, wanted: i32, refunding: i32) {
        self.refunding = self.refunding.saturating_add(refunding);
        self.remaining = self.remaining.saturating_add(wanted.saturating_sub(refunding));
    }

    /// Returns whether every order has ended.
    pub const fn is_settled(&self) -> bool {
        self.remaining == 0 && self.refunding == 0
    }
}

/// The progress of ending the orders of a cancelled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub cancellation: Cancellation,
    /// The last counts.
    pub tally: Tally,
    /// When they were taken; `None` before the first.
    pub count_time: Option<Timestamp>,
    /// When all orders had ended; `None` before.
    pub settle_time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_treated_or_counted_and_settled_only_at_an_end() {
        for refund_paid in [false, true] {
            for state in StateName::ALL {
                let mut tally = Tally::default();
                tally.count(state, refund_paid);
                let is_end = state.is_terminal() && Treatment::of(state, refund_paid) == Treatment::None;
                assert_eq!(tally.is_settled(), is_end, "{state:?}");
                let Tally { ended, kept, refunding, refunded, remaining } = tally;
                assert_eq!(ended + kept + refunding + refunded + remaining, 1, "{state:?}");
            }
        }
    }

    #[test]
    fn what_could_not_be_ended_remains() {
        let mut tally = Tally::default();
        tally.count_cancelled(5, 4);
        tally.count_refunding(3, 1);
        assert_eq!(tally, Tally { ended: 4, refunding: 1, remaining: 3, ..Tally::default() });
    }
}
