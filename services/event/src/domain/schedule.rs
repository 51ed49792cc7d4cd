//! The state machine of the service: the times of an event and its state.
//!
//! A transition takes a schedule and returns the next one with the next version, or the state that forbids it. None of
//! them reads a clock.

use crate::domain::{OutgoingMessage, Refusal};
use stampede_vocab::{EventId, InvalidField, Timestamp};
use std::{fmt, time::Duration};

/// The opening and closing time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    open_time: Timestamp,
    close_time: Timestamp,
}

impl Times {
    /// Returns the times. Fails with the field `close_time` if it is not after `open_time`.
    pub fn new(open_time: Timestamp, close_time: Timestamp) -> Result<Self, InvalidField> {
        if close_time > open_time {
            Ok(Self { open_time, close_time })
        } else {
            Err(InvalidField::new("close_time", "must be after open_time"))
        }
    }

    pub fn open_time(self) -> Timestamp {
        self.open_time
    }

    /// Returns when it closes, which is after it opens.
    pub fn close_time(self) -> Timestamp {
        self.close_time
    }

    /// Fails with the field `open_time` if the event would open before `earliest`; `problem` says what is required.
    pub fn opening_from(self, earliest: Timestamp, problem: impl Into<String>) -> Result<Self, InvalidField> {
        if self.open_time >= earliest { Ok(self) } else { Err(InvalidField::new("open_time", problem)) }
    }
}

/// The state of an event, with the data that only that state has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Scheduled,
    Open {
        actual_open_time: Timestamp,
    },
    /// Its closing time has passed.
    Closed {
        actual_open_time: Timestamp,
        actual_close_time: Timestamp,
    },
    /// Ended by an operator.
    Cancelled {
        actual_open_time: Option<Timestamp>,
        /// When it had closed, if it had.
        actual_close_time: Option<Timestamp>,
        cancel_time: Timestamp,
        paid_orders: PaidOrders,
    },
}

/// The fate of the paid orders of a cancelled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaidOrders {
    /// They stay as they are.
    Keep,
    Refund,
}

impl State {
    /// Returns whether the event has ended: nothing is sold any more. Time changes it no further, but a closed event
    /// may be cancelled.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Cancelled { .. })
    }

    /// Returns when the event opened, if it has.
    pub fn actual_open_time(self) -> Option<Timestamp> {
        match self {
            Self::Scheduled => None,
            Self::Open { actual_open_time } | Self::Closed { actual_open_time, .. } => Some(actual_open_time),
            Self::Cancelled { actual_open_time, .. } => actual_open_time,
        }
    }

    /// Returns when the event closed at its time, if it has, also if it was cancelled later.
    pub fn actual_close_time(self) -> Option<Timestamp> {
        match self {
            Self::Scheduled | Self::Open { .. } => None,
            Self::Closed { actual_close_time, .. } => Some(actual_close_time),
            Self::Cancelled { actual_close_time, .. } => actual_close_time,
        }
    }

    /// Returns when the event was cancelled, if it was.
    pub fn cancel_time(self) -> Option<Timestamp> {
        match self {
            Self::Cancelled { cancel_time, .. } => Some(cancel_time),
            Self::Scheduled | Self::Open { .. } | Self::Closed { .. } => None,
        }
    }

    /// Returns the fate of the paid orders, if the event was cancelled.
    pub fn paid_orders(self) -> Option<PaidOrders> {
        match self {
            Self::Cancelled { paid_orders, .. } => Some(paid_orders),
            Self::Scheduled | Self::Open { .. } | Self::Closed { .. } => None,
        }
    }

    /// Returns its name in the contract and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Open { .. } => "OPEN",
            Self::Closed { .. } => "CLOSED",
            Self::Cancelled { .. } => "CANCELLED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of an event that time and operators change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub event_id: EventId,
    pub times: Times,
    pub state: State,
    /// Incremented by each change.
    pub version: i64,
    pub updated_at: Timestamp,
}

impl Schedule {
    /// Returns the schedule of an event created `now`.
    pub fn new(event_id: EventId, times: Times, now: Timestamp) -> Self {
        Self { event_id, times, state: State::Scheduled, version: 1, updated_at: now }
    }

    /// Returns when the next timed transition is due; `None` in a final state.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Scheduled => Some(self.times.open_time),
            State::Open { .. } => Some(self.times.close_time),
            State::Closed { .. } | State::Cancelled { .. } => None,
        }
    }

    /// Opens the event. It must be SCHEDULED, and its opening must not be after `now`.
    pub fn open(self, now: Timestamp) -> Result<Self, Refusal> {
        match self.state {
            State::Scheduled if self.times.open_time <= now => {
                Ok(self.changed(State::Open { actual_open_time: now }, now))
            }
            _ => Err(self.not_due()),
        }
    }

    /// Closes the event. It must be OPEN, and its closing must not be after `now`.
    pub fn close(self, now: Timestamp) -> Result<Self, Refusal> {
        match self.state {
            State::Open { actual_open_time } if self.times.close_time <= now => {
                Ok(self.changed(State::Closed { actual_open_time, actual_close_time: now }, now))
            }
            _ => Err(self.not_due()),
        }
    }

    /// Moves the event to `times`. It must be SCHEDULED, with more than `lead` left to its opening.
    pub fn reschedule(self, times: Times, now: Timestamp, lead: Duration) -> Result<Self, Refusal> {
        match self.state {
            State::Scheduled if self.times.open_time > now.plus(lead) => {
                Ok(Self { times, ..self.changed(State::Scheduled, now) })
            }
            State::Scheduled => Err(Refusal::TooLate { left: self.times.open_time.since(now), lead }),
            state => Err(Refusal::NotScheduled { state }),
        }
    }

    /// Returns whether the event is SCHEDULED and has these times.
    pub fn is_scheduled_at(&self, times: Times) -> bool {
        self.state == State::Scheduled && self.times == times
    }

    /// Fails unless the event has the expected version. `None` expects any.
    pub fn ensure_version(&self, expected: Option<i64>) -> Result<(), Refusal> {
        match expected {
            Some(expected) if expected != self.version => {
                Err(Refusal::VersionMismatch { version: self.version, expected })
            }
            _ => Ok(()),
        }
    }

    /// Cancels the event, also one that has closed; `None` if that changes nothing. A repeat changes nothing unless the
    /// paid orders were kept and are to be refunded now.
    pub fn cancel(self, paid_orders: PaidOrders, now: Timestamp) -> Option<Self> {
        let (actual_open_time, actual_close_time) = (self.state.actual_open_time(), self.state.actual_close_time());
        let cancel_time = match self.state {
            State::Scheduled | State::Open { .. } | State::Closed { .. } => now,
            State::Cancelled { cancel_time, paid_orders: PaidOrders::Keep, .. }
                if paid_orders == PaidOrders::Refund =>
            {
                cancel_time
            }
            State::Cancelled { .. } => return None,
        };
        Some(self.changed(State::Cancelled { actual_open_time, actual_close_time, cancel_time, paid_orders }, now))
    }

    fn changed(self, state: State, now: Timestamp) -> Self {
        Self { state, version: self.version + 1, updated_at: now, ..self }
    }

    fn not_due(self) -> Refusal {
        Refusal::NotDue { state: self.state, due_at: self.due_at() }
    }
}

/// An event with a timed transition ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub event_id: EventId,
    /// When its next transition is due.
    pub due_at: Timestamp,
}

/// The transitions of a batch of events. An event that was due to open and to close is in both lists: it opens, then
/// closes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advanced {
    pub opened: Vec<Schedule>,
    pub closed: Vec<Schedule>,
}

impl Advanced {
    /// Makes every transition of these schedules that is due at `now`.
    pub fn at(now: Timestamp, schedules: impl IntoIterator<Item = Schedule>) -> Self {
        let mut advanced = Self::default();
        for mut schedule in schedules {
            if let Ok(open) = schedule.open(now) {
                advanced.opened.push(open);
                schedule = open;
            }
            advanced.closed.extend(schedule.close(now));
        }
        advanced
    }

    /// Returns whether nothing was due.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty()
    }

    /// Returns the messages to publish, the openings first.
    pub fn messages(&self) -> Vec<OutgoingMessage> {
        let opened = self.opened.iter().filter_map(|schedule| {
            let actual_open_time = schedule.state.actual_open_time()?;
            let Schedule { event_id, version, times, .. } = *schedule;
            Some(OutgoingMessage::Opened { event_id, version, open_time: times.open_time, actual_open_time })
        });
        let closed = self.closed.iter().filter_map(|schedule| {
            let actual_close_time = schedule.state.actual_close_time()?;
            let Schedule { event_id, version, times, .. } = *schedule;
            Some(OutgoingMessage::Closed { event_id, version, close_time: times.close_time, actual_close_time })
        });
        opened.chain(closed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const LEAD: Duration = Duration::from_secs(5);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Opens at 100 s, closes at 200 s.
    fn schedule(state: State) -> Schedule {
        let times = Times::new(at(100), at(200)).unwrap();
        Schedule { state, version: 7, ..Schedule::new(EventId::from_uuid(Uuid::from_u128(1)), times, at(0)) }
    }

    fn every_state() -> [Schedule; 4] {
        [
            State::Scheduled,
            State::Open { actual_open_time: at(100) },
            State::Closed { actual_open_time: at(100), actual_close_time: at(200) },
            State::Cancelled {
                actual_open_time: None,
                actual_close_time: None,
                cancel_time: at(50),
                paid_orders: PaidOrders::Keep,
            },
        ]
        .map(schedule)
    }

    /// State after each transition, tried in each state; `None` where it is refused.
    #[test]
    fn each_transition_is_allowed_in_its_states_only() {
        type Transition = fn(Schedule) -> Result<Schedule, Refusal>;
        let later = |s: Schedule| s.reschedule(Times::new(at(300), at(400)).unwrap(), at(10), LEAD);
        let cancel =
            |s: Schedule| -> Result<Schedule, Refusal> { Ok(s.cancel(PaidOrders::Keep, at(210)).unwrap_or(s)) };
        let cancelled = Some("CANCELLED");
        #[rustfmt::skip]
        let table: [(&str, Transition, [Option<&str>; 4]); 4] = [
            //                                    SCHEDULED          OPEN            CLOSED     CANCELLED
            ("open",       |s| s.open(at(100)),   [Some("OPEN"),      None,           None,      None]),
            ("close",      |s| s.close(at(200)),  [None,              Some("CLOSED"), None,      None]),
            ("cancel",     cancel,                [cancelled,         cancelled,      cancelled, cancelled]),
            ("reschedule", later,                 [Some("SCHEDULED"), None,           None,      None]),
        ];
        for (name, transition, expected) in table {
            for (before, expected) in every_state().into_iter().zip(expected) {
                let after = transition(before);
                assert_eq!(after.as_ref().ok().map(|s| s.state.as_str()), expected, "{name} in {}", before.state);
                let unchanged = name == "cancel" && matches!(before.state, State::Cancelled { .. });
                if let Ok(after) = after {
                    assert_eq!(after.version, before.version + i64::from(!unchanged), "{name} in {}", before.state);
                }
            }
        }
    }

    #[test]
    fn nothing_turns_a_microsecond_early() {
        let early = Timestamp::from_micros(at(100).micros() - 1);
        assert_eq!(Advanced::at(early, every_state()), Advanced::default());
        let refused = schedule(State::Scheduled).open(early).unwrap_err();
        assert_eq!(refused, Refusal::NotDue { state: State::Scheduled, due_at: Some(at(100)) });
    }

    #[test]
    fn a_final_state_is_never_due() {
        for schedule in every_state() {
            assert_eq!(schedule.due_at().is_none(), schedule.state.is_final(), "{}", schedule.state);
        }
    }

    #[test]
    fn an_event_that_slept_through_its_sale_opens_and_then_closes() {
        let advanced = Advanced::at(at(250), [schedule(State::Scheduled)]);
        let versions: Vec<_> =
            advanced.opened.iter().chain(&advanced.closed).map(|s| (s.state.as_str(), s.version)).collect();
        assert_eq!(versions, [("OPEN", 8), ("CLOSED", 9)]);
        assert!(matches!(
            advanced.messages()[..],
            [OutgoingMessage::Opened { version: 8, .. }, OutgoingMessage::Closed { version: 9, .. }]
        ));
    }

    #[test]
    fn times_are_moved_only_with_the_lead_to_spare() {
        let times = Times::new(at(300), at(400)).unwrap();
        let just_too_late = at(95);
        let refused = schedule(State::Scheduled).reschedule(times, just_too_late, LEAD).unwrap_err();
        assert_eq!(refused, Refusal::TooLate { left: Duration::from_secs(5), lead: LEAD });
        let in_time = Timestamp::from_micros(just_too_late.micros() - 1);
        let moved = schedule(State::Scheduled).reschedule(times, in_time, LEAD).unwrap();
        assert_eq!((moved.due_at(), moved.version), (Some(at(300)), 8));
    }

    #[test]
    fn only_another_version_than_the_one_seen_is_a_mismatch() {
        let schedule = schedule(State::Scheduled);
        assert_eq!(schedule.ensure_version(None), Ok(()));
        assert_eq!(schedule.ensure_version(Some(7)), Ok(()));
        for expected in [6, 8] {
            let mismatch = Refusal::VersionMismatch { version: 7, expected };
            assert_eq!(schedule.ensure_version(Some(expected)), Err(mismatch));
        }
    }

    #[test]
    fn an_event_closes_after_it_opens() {
        assert_eq!(Times::new(at(5), at(5)).unwrap_err().field, "close_time");
        assert_eq!(Times::new(at(6), at(5)).unwrap_err().field, "close_time");
        let times = Times::new(at(5), at(6)).unwrap();
        assert_eq!(times.opening_from(at(6), "must not be in the past").unwrap_err().field, "open_time");
        assert!(times.opening_from(at(5), "must not be in the past").is_ok());
    }

    #[test]
    fn a_cancelled_event_keeps_when_it_opened_and_when_it_closed() {
        let open = State::Open { actual_open_time: at(100) };
        let closed = State::Closed { actual_open_time: at(100), actual_close_time: at(200) };
        for (before, closed_at, now) in [(open, None, at(120)), (closed, Some(at(200)), at(900))] {
            let kept = schedule(before).cancel(PaidOrders::Keep, now).unwrap();
            let refunded = kept.cancel(PaidOrders::Refund, at(950)).unwrap();
            for after in [kept.state, refunded.state] {
                assert_eq!(
                    (after.actual_open_time(), after.actual_close_time()),
                    (Some(at(100)), closed_at),
                    "{before}"
                );
                assert_eq!(after.cancel_time(), Some(now), "{before}");
            }
        }
    }

    #[test]
    fn paid_orders_that_were_kept_may_be_refunded_later_and_never_the_other_way() {
        let kept = schedule(State::Scheduled).cancel(PaidOrders::Keep, at(50)).unwrap();
        assert_eq!(kept.cancel(PaidOrders::Keep, at(55)), None);
        let refunded = kept.cancel(PaidOrders::Refund, at(60)).unwrap();
        assert_eq!(refunded.version, kept.version + 1);
        assert_eq!(refunded.state.paid_orders(), Some(PaidOrders::Refund));
        assert_eq!(refunded.state.cancel_time(), Some(at(50)), "it was cancelled once");
        for again in [PaidOrders::Keep, PaidOrders::Refund] {
            assert_eq!(refunded.cancel(again, at(70)), None);
        }
    }

    #[test]
    fn an_event_is_where_it_is_to_be_only_while_it_waits() {
        let waiting = schedule(State::Scheduled);
        assert!(waiting.is_scheduled_at(waiting.times));
        assert!(!waiting.is_scheduled_at(Times::new(at(300), at(400)).unwrap()));
        assert!(!schedule(State::Open { actual_open_time: at(100) }).is_scheduled_at(waiting.times));
    }
}
