//! The read position and the floor of each partition. Without SQL and Kafka, so that tests can try any order of
//! commits.
//!
//! Ids of all partitions come from one sequence, so a relay tracks the ids of all partitions: a missing id may belong
//! to any of them.

use crate::gaps::{Gap, Gaps};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// One partition that this relay sends.
#[derive(Debug)]
pub struct Lane {
    /// The lease that it is sent under.
    pub epoch: u64,
    /// Everything up to here was sent by an earlier holder.
    begin: u64,
    /// Everything up to here was read, but for the gaps.
    read_to: u64,
    /// Messages that were read and are not acknowledged, with the time of their insert.
    unsent: BTreeMap<u64, i64>,
    /// It is about to be released: nothing more of it is sent.
    pub is_leaving: bool,
}

/// The cursor, the gaps below it, and the partitions.
#[derive(Debug, Default)]
pub struct Reading {
    cursor: u64,
    pub gaps: Gaps,
    lanes: BTreeMap<u16, Lane>,
}

impl Reading {
    /// The last id that was read.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The partitions.
    pub fn lanes(&self) -> &BTreeMap<u16, Lane> {
        &self.lanes
    }

    /// Adds a partition, of which everything up to `floor` has been sent.
    ///
    /// The cursor goes back to that floor. Rows that it then passes a second time are new to this partition only.
    pub fn enter(&mut self, partition: u16, epoch: u64, floor: u64) {
        if self.lanes.is_empty() {
            (self.cursor, self.gaps) = (floor, Gaps::default());
        }
        self.cursor = self.cursor.min(floor);
        let lane = Lane { epoch, begin: floor, read_to: floor, unsent: BTreeMap::new(), is_leaving: false };
        self.lanes.insert(partition, lane);
    }

    /// Removes a partition.
    pub fn leave(&mut self, partition: u16) {
        self.lanes.remove(&partition);
    }

    /// Stops reading a partition that is about to be released.
    pub fn freeze(&mut self, partition: u16) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.is_leaving = true;
        }
    }

    /// Notes the next row after the cursor. Returns whether it is to be sent.
    pub fn pass(&mut self, id: u64, partition: u16, created_us: i64, now: Instant) -> bool {
        if id > self.cursor + 1 {
            self.gaps.add(Gap { first: self.cursor + 1, last: id - 1 }, now);
        }
        let was_missing = self.gaps.fill(id);
        self.cursor = self.cursor.max(id);
        let is_new = self.lanes.get_mut(&partition).is_some_and(|lane| lane.take(id, created_us, was_missing));
        for lane in self.lanes.values_mut().filter(|lane| !lane.is_leaving) {
            lane.read_to = lane.read_to.max(id);
        }
        is_new
    }

    /// Notes a row that was found in a gap. Returns whether it is to be sent.
    pub fn find(&mut self, id: u64, partition: u16, created_us: i64) -> bool {
        self.gaps.fill(id) && self.lanes.get_mut(&partition).is_some_and(|lane| lane.take(id, created_us, true))
    }

    /// Notes that a message was acknowledged.
    pub fn sent(&mut self, partition: u16, id: u64) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.unsent.remove(&id);
        }
    }

    /// Returns the floor of each partition: below every message that is not acknowledged, and below every gap, since
    /// its message may belong to this partition.
    pub fn floors(&self) -> BTreeMap<u16, u64> {
        let below_gaps = self.gaps.lowest().map_or(u64::MAX, |lowest| lowest - 1);
        self.lanes.iter().map(|(&partition, lane)| (partition, lane.floor(below_gaps))).collect()
    }

    /// Returns how many messages are not acknowledged, and when the oldest of them was written.
    pub fn unsent(&self) -> (usize, Option<i64>) {
        let count = self.lanes.values().map(|lane| lane.unsent.len()).sum();
        let first_ones = self.lanes.values().filter_map(|lane| lane.unsent.first_key_value());
        (count, first_ones.map(|(_, created_us)| *created_us).min())
    }
}

impl Lane {
    /// Returns whether a row is to be sent, having noted it as unsent if this partition has not seen it before.
    fn take(&mut self, id: u64, created_us: i64, was_missing: bool) -> bool {
        // A row from a gap is new although it lies below the read position. Rows up to `begin` were sent by an earlier
        // holder.
        let is_new = id > self.begin && (id > self.read_to || was_missing);
        if !is_new || (self.is_leaving && id > self.read_to) {
            return false;
        }
        self.unsent.insert(id, created_us);
        !self.is_leaving
    }

    fn floor(&self, below_gaps: u64) -> u64 {
        let below_unsent = self.unsent.first_key_value().map_or(u64::MAX, |(lowest, _)| lowest - 1);
        self.read_to.min(below_gaps).min(below_unsent).max(self.begin)
    }
}

#[cfg(test)]
mod tests;
