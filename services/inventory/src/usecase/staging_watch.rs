//! Tracks which events that open soon are staged: each is checked ahead of its opening and again at it. No I/O.

use stampede_vocab::{EventId, Timestamp};
use std::collections::{HashMap, HashSet};

/// When an event is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Before its opening.
    Ahead,
    /// From its opening on.
    Open,
}

impl Phase {
    pub(super) const ALL: [Self; 2] = [Self::Ahead, Self::Open];

    /// Returns its name in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Open => "open",
        }
    }

    fn of(open_time: Timestamp, now: Timestamp) -> Self {
        if open_time <= now { Self::Open } else { Self::Ahead }
    }
}

/// An event that opens soon, or has just opened.
#[derive(Debug)]
struct Watched {
    open_time: Timestamp,
    /// The last phase in which it was found staged.
    staged: Option<Phase>,
    /// The phase in which it was found missing, until it is staged.
    missing: Option<Phase>,
}

#[derive(Debug, Default)]
pub(super) struct StagingWatch {
    events: HashMap<EventId, Watched>,
}

impl StagingWatch {
    /// Replaces the watched events, and returns those that have to be checked. A new one waits for the next call: its
    /// writer is staging it.
    pub(super) fn due(&mut self, upcoming: &[(EventId, Timestamp)], now: Timestamp) -> Vec<EventId> {
        let known: HashSet<(EventId, Timestamp)> = upcoming.iter().copied().collect();
        self.events.retain(|event, watched| known.contains(&(*event, watched.open_time)));
        let mut events = Vec::new();
        for (event, open_time) in upcoming {
            match self.events.get(event) {
                Some(watched) if watched.staged < Some(Phase::of(*open_time, now)) => events.push(*event),
                Some(_) => {}
                None => {
                    let watched = Watched { open_time: *open_time, staged: None, missing: None };
                    self.events.insert(*event, watched);
                }
            }
        }
        events
    }

    /// Records whether an event was staged at `now`. Returns the phase if it is newly missing in it.
    pub(super) fn record(&mut self, event: EventId, is_staged: bool, now: Timestamp) -> Option<Phase> {
        let watched = self.events.get_mut(&event)?;
        let phase = Phase::of(watched.open_time, now);
        if is_staged {
            (watched.staged, watched.missing) = (Some(phase), None);
            return None;
        }
        let is_newly_missing = watched.missing != Some(phase);
        watched.missing = Some(phase);
        is_newly_missing.then_some(phase)
    }

    /// Returns how many events are missing in this phase.
    pub(super) fn missing(&self, phase: Phase) -> u64 {
        self.events.values().filter(|watched| watched.missing == Some(phase)).map(|_| 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const OPENS: Timestamp = Timestamp::from_micros(60_000_000);

    fn event() -> EventId {
        EventId::from_uuid(Uuid::from_u128(7))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_event_is_looked_at_ahead_and_at_its_opening_once_each() {
        let mut watch = StagingWatch::default();
        let upcoming = [(event(), OPENS)];
        assert_eq!(watch.due(&upcoming, at(1)), [], "it may be on its way");
        assert_eq!(watch.due(&upcoming, at(2)), [event()]);
        assert_eq!(watch.record(event(), true, at(2)), None);
        assert_eq!(watch.due(&upcoming, at(3)), []);
        assert_eq!(watch.due(&upcoming, at(60)), [event()]);
        assert_eq!(watch.record(event(), true, at(60)), None);
        assert_eq!(watch.due(&upcoming, at(61)), []);
    }

    #[test]
    fn what_is_missing_is_told_once_a_stage_and_looked_at_until_it_is_there() {
        let mut watch = StagingWatch::default();
        let upcoming = [(event(), OPENS)];
        watch.due(&upcoming, at(1));
        for (second, told) in [(2, Some(Phase::Ahead)), (3, None), (60, Some(Phase::Open)), (61, None)] {
            assert_eq!(watch.due(&upcoming, at(second)), [event()]);
            assert_eq!(watch.record(event(), false, at(second)), told);
        }
        assert_eq!(Phase::ALL.map(|phase| watch.missing(phase)), [0, 1]);
        watch.record(event(), true, at(62));
        assert_eq!(Phase::ALL.map(|phase| watch.missing(phase)), [0, 0]);
    }

    #[test]
    fn what_moves_is_looked_at_anew_and_what_is_gone_is_forgotten() {
        let mut watch = StagingWatch::default();
        watch.due(&[(event(), OPENS)], at(1));
        watch.record(event(), false, at(2));
        let moved = [(event(), at(70))];
        assert_eq!(watch.due(&moved, at(3)), []);
        assert_eq!(watch.missing(Phase::Ahead), 0);
        assert_eq!(watch.due(&moved, at(4)), [event()]);
        watch.due(&[], at(5));
        assert_eq!(watch.record(event(), false, at(5)), None);
    }
}
