//! Any order of inserts, commits, rollbacks, reads, acknowledgements and changes of hands.

use super::*;
use proptest::prelude::*;
use std::{collections::BTreeSet, time::Duration};

const PARTITIONS: u16 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    RolledBack,
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u16),
    End(usize, State),
    Scan(usize),
    Probe,
    Check,
    Acknowledge(usize),
    Enter(u16),
    Freeze(u16),
    Leave(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..PARTITIONS;
    prop_oneof![
        4 => partition().prop_map(Step::Insert),
        3 => any::<usize>().prop_map(|row| Step::End(row, State::Committed)),
        1 => any::<usize>().prop_map(|row| Step::End(row, State::RolledBack)),
        4 => (1..5_usize).prop_map(Step::Scan),
        2 => Just(Step::Probe),
        1 => Just(Step::Check),
        3 => any::<usize>().prop_map(Step::Acknowledge),
        2 => partition().prop_map(Step::Enter),
        1 => partition().prop_map(Step::Freeze),
        1 => partition().prop_map(Step::Leave),
    ]
}

/// A table, and a relay of some of its partitions.
struct Model {
    /// Row `n` has id `n + 1`.
    rows: Vec<(u16, State)>,
    reading: Reading,
    /// Floors as a lease keeps them.
    floors: [u64; PARTITIONS as usize],
    /// What was read of each partition that is held, since it is.
    read: BTreeMap<u16, BTreeSet<u64>>,
    in_flight: Vec<(u16, u64)>,
    in_kafka: BTreeSet<u64>,
    epoch: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            rows: Vec::new(),
            reading: Reading::default(),
            floors: [0; PARTITIONS as usize],
            read: BTreeMap::new(),
            in_flight: Vec::new(),
            in_kafka: BTreeSet::new(),
            epoch: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Insert(partition) => self.rows.push((partition, State::Open)),
            Step::End(row, state) => self.end(row, state),
            Step::Scan(limit) => self.scan(limit),
            Step::Probe => self.probe(3),
            Step::Check => self.check(3),
            Step::Acknowledge(which) => self.acknowledge(which),
            Step::Enter(partition) => self.enter(partition),
            Step::Freeze(partition) => self.reading.freeze(partition),
            Step::Leave(partition) => self.leave(partition),
        }
        self.holds();
    }

    fn end(&mut self, row: usize, state: State) {
        let mut open: Vec<_> = self.rows.iter_mut().filter(|(_, state)| *state == State::Open).collect();
        if !open.is_empty() {
            let row = row % open.len();
            open[row].1 = state;
        }
    }

    fn committed(&self, first: u64, last: u64) -> Vec<(u64, u16)> {
        let ids = (1_u64..).zip(&self.rows).filter(|(_, (_, state))| *state == State::Committed);
        ids.filter(|(id, _)| (first..=last).contains(id)).map(|(id, (partition, _))| (id, *partition)).collect()
    }

    fn scan(&mut self, limit: usize) {
        if self.read.is_empty() {
            return;
        }
        for (id, partition) in self.committed(self.reading.cursor() + 1, u64::MAX).into_iter().take(limit) {
            let is_new = self.reading.pass(id, partition, 0, Instant::now());
            self.note(is_new, id, partition);
        }
    }

    fn probe(&mut self, count: usize) {
        for gap in self.reading.gaps.cover(0, self.reading.cursor, count) {
            for (id, partition) in self.committed(gap.first, gap.last) {
                let is_new = self.reading.find(id, partition, 0);
                self.note(is_new, id, partition);
            }
        }
    }

    fn note(&mut self, is_new: bool, id: u64, partition: u16) {
        if is_new {
            let read = self.read.get_mut(&partition).expect("only what is held is sent");
            assert!(read.insert(id), "{id} was read twice");
            self.in_flight.push((partition, id));
        }
    }

    /// As the locking read does: a gap is empty for good if every id of it was rolled back.
    fn check(&mut self, count: usize) {
        let cursor = self.reading.cursor();
        let gaps = self.reading.gaps.take_due(cursor, count, Duration::ZERO, Instant::now());
        let is_empty = |id: u64| self.rows[usize::try_from(id - 1).unwrap()].1 == State::RolledBack;
        let empty: Vec<Gap> = gaps.into_iter().filter(|gap| (gap.first..=gap.last).all(is_empty)).collect();
        self.reading.gaps.give_up(&empty);
    }

    fn acknowledge(&mut self, which: usize) {
        if !self.in_flight.is_empty() {
            let (partition, id) = self.in_flight.remove(which % self.in_flight.len());
            self.in_kafka.insert(id);
            self.reading.sent(partition, id);
        }
    }

    fn enter(&mut self, partition: u16) {
        if !self.read.contains_key(&partition) {
            self.epoch += 1;
            self.reading.enter(partition, self.epoch, self.floors[usize::from(partition)]);
            self.read.insert(partition, BTreeSet::new());
        }
    }

    fn leave(&mut self, partition: u16) {
        if self.read.remove(&partition).is_some() {
            self.floors[usize::from(partition)] = self.reading.floors()[&partition];
            self.reading.leave(partition);
            self.in_flight.retain(|(of, _)| *of != partition);
        }
    }

    /// Checks that no floor has passed what is not in Kafka and may have to be.
    fn holds(&self) {
        for (partition, floor) in self.reading.floors() {
            for (id, (of, state)) in (1..=floor).zip(&self.rows) {
                let is_done = *state == State::RolledBack || self.in_kafka.contains(&id);
                assert!(*of != partition || is_done, "floor {floor} of {partition} has passed {id}");
            }
        }
    }

    /// Commits what is open, and goes on until nothing is left to be done.
    fn finish(&mut self) {
        for (_, state) in self.rows.iter_mut().filter(|(_, state)| *state == State::Open) {
            *state = State::Committed;
        }
        for partition in 0..PARTITIONS {
            self.leave(partition);
            self.enter(partition);
        }
        self.scan(usize::MAX);
        self.probe(usize::MAX);
        self.check(usize::MAX);
        while !self.in_flight.is_empty() {
            self.acknowledge(0);
        }
        self.holds();
        let committed = self.committed(1, u64::MAX);
        assert!(committed.iter().all(|(id, _)| self.in_kafka.contains(id)), "a message was lost");
        let last = committed.last().map_or(0, |(id, _)| *id);
        assert!(self.reading.floors().values().all(|floor| *floor >= last), "{:?}", self.reading);
        assert_eq!(self.reading.unsent(), (0, None));
    }
}

proptest! {
    #[test]
    fn each_id_is_read_once_and_no_floor_passes_an_unsent_one(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
        model.finish();
    }
}

#[test]
fn a_floor_waits_for_a_gap_and_for_an_acknowledgement() {
    let (mut reading, now) = (Reading::default(), Instant::now());
    reading.enter(0, 1, 10);
    assert!(reading.pass(11, 0, 7, now));
    assert!(reading.pass(13, 0, 8, now));
    assert_eq!((reading.floors()[&0], reading.unsent()), (10, (2, Some(7))));
    reading.sent(0, 13);
    assert_eq!(reading.floors()[&0], 10);
    reading.sent(0, 11);
    assert_eq!(reading.floors()[&0], 11);
    assert!(reading.find(12, 0, 9));
    reading.sent(0, 12);
    assert_eq!(reading.floors()[&0], 13);
}

#[test]
fn a_partition_that_is_about_to_go_is_read_no_further_and_its_floor_stays() {
    let (mut reading, now) = (Reading::default(), Instant::now());
    reading.enter(0, 1, 0);
    reading.enter(1, 1, 0);
    assert!(reading.pass(2, 0, 7, now));
    reading.freeze(0);
    assert!(!reading.find(1, 0, 7), "it is left to the next holder");
    assert!(!reading.pass(3, 0, 7, now));
    assert!(reading.pass(4, 1, 7, now));
    reading.sent(0, 2);
    reading.sent(1, 4);
    assert_eq!(reading.floors(), [(0, 0), (1, 4)].into());
}
