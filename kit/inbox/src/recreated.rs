//! Detects that a topic was deleted and created again while a consumer reads it.
//!
//! Kafka deletes the committed offsets of a group with the topic, so a new consumer starts at the beginning of the new
//! topic. But a running client keeps its position, unless it notices that the topic is missing in between, or that the
//! new one is shorter. It would skip the records of the new topic before that position.
//!
//! So the consumer regularly checks whether the first record of a partition is newer than the newest record that it
//! knew of at the check before. If so, the partition was recreated. One ListOffsets request by timestamp covers all
//! partitions.

use crate::{client::Client, positions::Positions};
use rdkafka::{
    Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError,
    topic_partition_list::TopicPartitionListElem,
};
use stampede_vocab::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::task::spawn_blocking;

/// Time between two checks. A topic that is recreated before the first check is not detected, nor one within
/// [`MAX_CLOCK_SKEW_MS`] after it if nothing was read.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How far the clocks of producers may be ahead of this one.
const MAX_CLOCK_SKEW_MS: i64 = 5_000;
/// Longest wait for the answer. Nothing is read meanwhile.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A topic and the number of a partition.
pub type TopicPartition = (String, i32);

/// The timestamps by which recreated partitions are detected.
#[derive(Debug, Default)]
pub struct RecreationDetector {
    /// For each partition that had a record at the last check: a timestamp in milliseconds that is not older than its
    /// first record.
    known: HashMap<TopicPartition, i64>,
    /// The timestamp of the newest record that was read since.
    read: HashMap<TopicPartition, i64>,
}

impl RecreationDetector {
    /// Notes which records were read.
    pub fn read(&mut self, positions: &Positions) {
        // A consumer that reads the first record skips none, even if the partition was recreated.
        for place in positions.read_from_start() {
            self.known.remove(place);
            self.read.remove(place);
        }
        for (place, written_ms) in positions.newest() {
            match self.read.get_mut(place) {
                Some(newest_ms) => *newest_ms = written_ms.max(*newest_ms),
                None => {
                    self.read.insert(place.clone(), written_ms);
                }
            }
        }
    }

    /// Returns the partitions of this client that were recreated since the last check.
    pub async fn check(&mut self, client: &Arc<Client>) -> Result<Vec<TopicPartition>, KafkaError> {
        let assigned = client.assignment()?;
        // Another consumer may have read a partition that was revoked meanwhile: its timestamps are stale.
        self.keep(&assigned);
        let queries = self.queries(&assigned)?;
        if queries.count() == 0 {
            return Ok(Vec::new());
        }
        let client = client.clone();
        let answered = spawn_blocking(move || client.offsets_for_times(queries, TIMEOUT)).await;
        // The task is cancelled only when the runtime shuts down.
        let Ok(answers) = answered else { return Ok(Vec::new()) };
        Ok(self.evaluate(&answers?, Timestamp::now().micros() / 1_000))
    }

    /// Forgets the timestamps of these partitions.
    pub fn forget(&mut self, places: &[TopicPartition]) {
        for place in places {
            self.known.remove(place);
            self.read.remove(place);
        }
    }

    fn keep(&mut self, assigned: &TopicPartitionList) {
        let assigned: HashSet<TopicPartition> = assigned.elements().iter().map(place).collect();
        self.known.retain(|place, _| assigned.contains(place));
        self.read.retain(|place, _| assigned.contains(place));
    }

    /// Builds the request: the offset of the first record that is newer than the known timestamp, or of the first
    /// record if none is known.
    fn queries(&self, assigned: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
        let mut queries = TopicPartitionList::with_capacity(assigned.count());
        for element in assigned.elements() {
            let place = place(&element);
            let from_ms = self.known.get(&place).map_or(0, |known_ms| known_ms + 1);
            queries.add_partition_offset(&place.0, place.1, Offset::Offset(from_ms))?;
        }
        Ok(queries)
    }

    fn evaluate(&mut self, answers: &TopicPartitionList, now_ms: i64) -> Vec<TopicPartition> {
        let mut read = std::mem::take(&mut self.read);
        let mut recreated = Vec::new();
        for element in answers.elements().iter().filter(|element| element.error().is_ok()) {
            let place = place(element);
            let read_ms = read.remove(&place);
            match (self.known.get(&place).copied(), element.offset()) {
                // It had an older first record at the last check. The timestamps that were read since may be those of
                // the new partition, so they are dropped.
                (Some(_), Offset::Offset(0)) => recreated.push(place),
                (Some(known_ms), _) => {
                    self.known.insert(place, read_ms.map_or(known_ms, |read_ms| read_ms.max(known_ms)));
                }
                (None, Offset::Offset(_)) => {
                    self.known.insert(place, read_ms.unwrap_or(now_ms + MAX_CLOCK_SKEW_MS));
                }
                // It is empty: there is no first record to compare with.
                (None, _) => {}
            }
        }
        recreated
    }
}

fn place(element: &TopicPartitionListElem<'_>) -> TopicPartition {
    (element.topic().to_owned(), element.partition())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer that the first record after the requested time has this offset; `None` if there is none.
    fn answer(offset: Option<i64>) -> TopicPartitionList {
        let mut answers = TopicPartitionList::new();
        answers.add_partition_offset("t", 0, offset.map_or(Offset::End, Offset::Offset)).unwrap();
        answers
    }

    fn read(detector: &mut RecreationDetector, offset: i64, written_ms: i64) {
        let mut positions = Positions::default();
        positions.read("t", 0, offset, Some(written_ms));
        detector.read(&positions);
    }

    fn queried_from(detector: &RecreationDetector) -> Option<i64> {
        detector.queries(&answer(None)).unwrap().elements()[0].offset().to_raw()
    }

    #[test]
    fn a_partition_whose_first_record_is_newer_than_all_known_ones_was_recreated() {
        let mut detector = RecreationDetector::default();
        assert_eq!(queried_from(&detector), Some(0));
        read(&mut detector, 6, 70);
        read(&mut detector, 7, 60);
        assert!(detector.evaluate(&answer(Some(0)), 1_000).is_empty(), "nothing was known of it");
        assert_eq!(queried_from(&detector), Some(71));
        // A record that was read since the check does not hide it.
        read(&mut detector, 8, 90);
        let recreated = detector.evaluate(&answer(Some(0)), 1_000);
        assert_eq!(
            (&*recreated, queried_from(&detector)),
            (&[("t".to_owned(), 0)][..], Some(71)),
            "until it is read anew"
        );
        detector.forget(&recreated);
        assert_eq!(queried_from(&detector), Some(0));
    }

    #[test]
    fn a_consumer_that_has_read_the_first_record_has_skipped_none() {
        let mut detector = RecreationDetector::default();
        read(&mut detector, 6, 70);
        assert!(detector.evaluate(&answer(Some(0)), 1_000).is_empty());
        // The client has noticed the recreation itself.
        read(&mut detector, 0, 90);
        assert_eq!(queried_from(&detector), Some(0));
        assert!(detector.evaluate(&answer(Some(0)), 1_000).is_empty());
        assert_eq!(queried_from(&detector), Some(91));
    }

    #[test]
    fn a_revoked_partition_is_forgotten() {
        let mut detector = RecreationDetector::default();
        read(&mut detector, 6, 70);
        assert!(detector.evaluate(&answer(Some(0)), 1_000).is_empty());
        detector.keep(&answer(None));
        assert_eq!(queried_from(&detector), Some(71), "it is still its own");
        detector.keep(&TopicPartitionList::new());
        assert_eq!(queried_from(&detector), Some(0), "another one has had it since");
    }

    #[test]
    fn a_partition_that_grows_does_not_grow_or_is_empty_was_not_recreated() {
        let mut detector = RecreationDetector::default();
        assert!(detector.evaluate(&answer(None), 1_000).is_empty());
        assert_eq!(queried_from(&detector), Some(0), "its first record is no sign");
        assert!(detector.evaluate(&answer(Some(3)), 1_000).is_empty());
        assert_eq!(queried_from(&detector), Some(6_001), "whatever it had was there by then");
        read(&mut detector, 8, 9_000);
        assert!(detector.evaluate(&answer(Some(8)), 9_000).is_empty());
        assert!(detector.evaluate(&answer(None), 9_000).is_empty());
        assert_eq!(queried_from(&detector), Some(9_001));
    }
}
