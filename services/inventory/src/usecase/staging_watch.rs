//! Which events that open soon were seen to be staged: each once ahead of its opening, and once more at it. Knows
//! neither Redis nor the database.

use stampede_vocab::{EventId, Timestamp};
use std::collections::{HashMap, HashSet};

/// When an event is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Before its opening.
    Ahead,
    /// From its opening on.
    Open,
}

impl Stage {
    /// Both, in their order.
    pub(super) const ALL: [Self; 2] = [Self::Ahead, Self::Open];

    /// The name that metrics and logs have for it.
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

/// One event that opens soon, or has just opened.
#[derive(Debug)]
struct Watched {
    open_time: Timestamp,
    /// The last stage at which it was staged.
    staged: Option<Stage>,
    /// The stage at which it is not staged now.
    missing: Option<Stage>,
}

/// The events that open soon.
#[derive(Debug, Default)]
pub(super) struct StagingWatch {
    events: HashMap<EventId, Watched>,
}

impl StagingWatch {
    /// Takes the events near their opening as they are now, and returns those that are to be looked at. One that is new
    /// here waits for the next call: whoever has just written it is staging it.
    pub(super) fn next(&mut self, near: &[(EventId, Timestamp)], now: Timestamp) -> Vec<EventId> {
        let known: HashSet<(EventId, Timestamp)> = near.iter().copied().collect();
        self.events.retain(|event, watched| known.contains(&(*event, watched.open_time)));
        let mut due = Vec::new();
        for (event, open_time) in near {
            match self.events.get(event) {
                Some(watched) if watched.staged < Some(Stage::of(*open_time, now)) => due.push(*event),
                Some(_) => {}
                None => {
                    let watched = Watched { open_time: *open_time, staged: None, missing: None };
                    self.events.insert(*event, watched);
                }
            }
        }
        due
    }

    /// Notes whether an event was staged at `now`. Returns the stage at which it is not, when that is news.
    pub(super) fn note(&mut self, event: EventId, is_staged: bool, now: Timestamp) -> Option<Stage> {
        let watched = self.events.get_mut(&event)?;
        let stage = Stage::of(watched.open_time, now);
        if is_staged {
            (watched.staged, watched.missing) = (Some(stage), None);
            return None;
        }
        let is_news = watched.missing != Some(stage);
        watched.missing = Some(stage);
        is_news.then_some(stage)
    }

    /// How many events are not staged at this stage.
    pub(super) fn missing(&self, stage: Stage) -> u64 {
        self.events.values().filter(|watched| watched.missing == Some(stage)).map(|_| 1).sum()
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
        let near = [(event(), OPENS)];
        assert_eq!(watch.next(&near, at(1)), [], "it may be on its way");
        assert_eq!(watch.next(&near, at(2)), [event()]);
        assert_eq!(watch.note(event(), true, at(2)), None);
        assert_eq!(watch.next(&near, at(3)), []);
        assert_eq!(watch.next(&near, at(60)), [event()]);
        assert_eq!(watch.note(event(), true, at(60)), None);
        assert_eq!(watch.next(&near, at(61)), []);
    }

    #[test]
    fn what_is_missing_is_told_once_a_stage_and_looked_at_until_it_is_there() {
        let mut watch = StagingWatch::default();
        let near = [(event(), OPENS)];
        watch.next(&near, at(1));
        for (second, told) in [(2, Some(Stage::Ahead)), (3, None), (60, Some(Stage::Open)), (61, None)] {
            assert_eq!(watch.next(&near, at(second)), [event()]);
            assert_eq!(watch.note(event(), false, at(second)), told);
        }
        assert_eq!(Stage::ALL.map(|stage| watch.missing(stage)), [0, 1]);
        watch.note(event(), true, at(62));
        assert_eq!(Stage::ALL.map(|stage| watch.missing(stage)), [0, 0]);
    }

    #[test]
    fn what_moves_is_looked_at_anew_and_what_is_gone_is_forgotten() {
        let mut watch = StagingWatch::default();
        watch.next(&[(event(), OPENS)], at(1));
        watch.note(event(), false, at(2));
        let moved = [(event(), at(70))];
        assert_eq!(watch.next(&moved, at(3)), []);
        assert_eq!(watch.missing(Stage::Ahead), 0);
        assert_eq!(watch.next(&moved, at(4)), [event()]);
        watch.next(&[], at(5));
        assert_eq!(watch.note(event(), false, at(5)), None);
    }
}
