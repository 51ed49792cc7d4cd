//! Whether a topic was deleted and made anew while a consumer reads it.
//!
//! With a topic Kafka forgets the places that its readers had stored, so whoever begins to read the new one begins at
//! its start. But Kafka's client goes on at the place that it has, unless it sees in between that there is no such
//! topic, or that the new one does not go so far: what the new one has before that place would never be read.
//!
//! So the consumer asks now and then whether the very first record of a partition is newer than the newest that it knew
//! of at the look before. If it is, that is another partition. It costs one request for all of them, since Kafka finds
//! a record by its time.

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

/// Time between two looks. What is made anew before the first of them, and [`CLOCKS_DIFFER_MS`] after it where nothing
/// was read, is not noticed.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How far the clocks of writers may be ahead of this one.
const CLOCKS_DIFFER_MS: i64 = 5_000;
/// Longest wait for an answer of Kafka. Nothing is read meanwhile.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A topic, and a partition of it.
pub type Place = (String, i32);

/// What is known of the partitions that a consumer reads.
#[derive(Debug, Default)]
pub struct Looks {
    /// The partitions that had a record at the last look, and a time, in milliseconds, after which no record was
    /// written that they began with.
    known: HashMap<Place, i64>,
    /// When the newest record was written that was read since.
    read: HashMap<Place, i64>,
}

impl Looks {
    /// Takes note of what was read.
    pub fn read(&mut self, positions: &Positions) {
        // Whoever reads the first record has lost nothing, of whatever topic it is.
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

    /// Returns the partitions of this client that were made anew since the last look.
    pub async fn look(&mut self, client: &Arc<Client>) -> Result<Vec<Place>, KafkaError> {
        let assigned = client.assignment()?;
        // What was known of a partition that another one has read meanwhile says nothing.
        self.keep(&assigned);
        let asked = self.questions(&assigned)?;
        if asked.count() == 0 {
            return Ok(Vec::new());
        }
        let client = client.clone();
        let answered = spawn_blocking(move || client.offsets_for_times(asked, TIMEOUT)).await;
        // It is broken off only where the runtime ends.
        let Ok(answers) = answered else { return Ok(Vec::new()) };
        Ok(self.learn(&answers?, Timestamp::now().micros() / 1_000))
    }

    /// Begins anew with these.
    pub fn forget(&mut self, places: &[Place]) {
        for place in places {
            self.known.remove(place);
            self.read.remove(place);
        }
    }

    fn keep(&mut self, assigned: &TopicPartitionList) {
        let assigned: HashSet<Place> = assigned.elements().iter().map(place).collect();
        self.known.retain(|place, _| assigned.contains(place));
        self.read.retain(|place, _| assigned.contains(place));
    }

    /// Where in each partition is the first record that is newer than what is known? Of one of which nothing is known:
    /// where is the first record?
    fn questions(&self, assigned: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
        let mut asked = TopicPartitionList::with_capacity(assigned.count());
        for element in assigned.elements() {
            let place = place(&element);
            let from_ms = self.known.get(&place).map_or(0, |known_ms| known_ms + 1);
            asked.add_partition_offset(&place.0, place.1, Offset::Offset(from_ms))?;
        }
        Ok(asked)
    }

    fn learn(&mut self, answers: &TopicPartitionList, now_ms: i64) -> Vec<Place> {
        let mut read = std::mem::take(&mut self.read);
        let mut remade = Vec::new();
        for element in answers.elements().iter().filter(|element| element.error().is_ok()) {
            let place = place(element);
            let read_ms = read.remove(&place);
            match (self.known.get(&place).copied(), element.offset()) {
                // It had another first record at the last look. What was read since may be of the new one already, and
                // says nothing.
                (Some(_), Offset::Offset(0)) => remade.push(place),
                (Some(known_ms), _) => {
                    self.known.insert(place, read_ms.map_or(known_ms, |read_ms| read_ms.max(known_ms)));
                }
                (None, Offset::Offset(_)) => {
                    self.known.insert(place, read_ms.unwrap_or(now_ms + CLOCKS_DIFFER_MS));
                }
                // It is empty: its first record is no sign.
                (None, _) => {}
            }
        }
        remade
    }
}

fn place(element: &TopicPartitionListElem<'_>) -> Place {
    (element.topic().to_owned(), element.partition())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer that the first record behind the time that was asked for is there; `None` if there is no such record.
    fn answer(offset: Option<i64>) -> TopicPartitionList {
        let mut answers = TopicPartitionList::new();
        answers.add_partition_offset("t", 0, offset.map_or(Offset::End, Offset::Offset)).unwrap();
        answers
    }

    fn read(looks: &mut Looks, offset: i64, written_ms: i64) {
        let mut positions = Positions::default();
        positions.read("t", 0, offset, Some(written_ms));
        looks.read(&positions);
    }

    fn asked_from(looks: &Looks) -> Option<i64> {
        looks.questions(&answer(None)).unwrap().elements()[0].offset().to_raw()
    }

    #[test]
    fn a_partition_whose_first_record_is_newer_than_all_that_was_known_was_made_anew() {
        let mut looks = Looks::default();
        assert_eq!(asked_from(&looks), Some(0));
        read(&mut looks, 6, 70);
        read(&mut looks, 7, 60);
        assert!(looks.learn(&answer(Some(0)), 1_000).is_empty(), "nothing was known of it");
        assert_eq!(asked_from(&looks), Some(71));
        // A record that was read since the look does not hide it.
        read(&mut looks, 8, 90);
        let remade = looks.learn(&answer(Some(0)), 1_000);
        assert_eq!((&*remade, asked_from(&looks)), (&[("t".to_owned(), 0)][..], Some(71)), "until it is read anew");
        looks.forget(&remade);
        assert_eq!(asked_from(&looks), Some(0));
    }

    #[test]
    fn who_has_read_the_first_record_has_lost_nothing() {
        let mut looks = Looks::default();
        read(&mut looks, 6, 70);
        assert!(looks.learn(&answer(Some(0)), 1_000).is_empty());
        // The client has seen by itself that the topic was made anew.
        read(&mut looks, 0, 90);
        assert_eq!(asked_from(&looks), Some(0));
        assert!(looks.learn(&answer(Some(0)), 1_000).is_empty());
        assert_eq!(asked_from(&looks), Some(91));
    }

    #[test]
    fn what_is_known_of_a_partition_goes_with_it() {
        let mut looks = Looks::default();
        read(&mut looks, 6, 70);
        assert!(looks.learn(&answer(Some(0)), 1_000).is_empty());
        looks.keep(&answer(None));
        assert_eq!(asked_from(&looks), Some(71), "it is still its own");
        looks.keep(&TopicPartitionList::new());
        assert_eq!(asked_from(&looks), Some(0), "another one has had it since");
    }

    #[test]
    fn a_partition_that_grows_stands_still_or_is_empty_is_the_same() {
        let mut looks = Looks::default();
        assert!(looks.learn(&answer(None), 1_000).is_empty());
        assert_eq!(asked_from(&looks), Some(0), "its first record is no sign");
        assert!(looks.learn(&answer(Some(3)), 1_000).is_empty());
        assert_eq!(asked_from(&looks), Some(6_001), "whatever it had was there by then");
        read(&mut looks, 8, 9_000);
        assert!(looks.learn(&answer(Some(8)), 9_000).is_empty());
        assert!(looks.learn(&answer(None), 9_000).is_empty());
        assert_eq!(asked_from(&looks), Some(9_001));
    }
}
