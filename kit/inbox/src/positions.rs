//! The offsets up to which each partition of a batch is processed, which its consumer commits.

use crate::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;

/// The range of offsets of a batch in each partition.
#[derive(Debug, Default)]
pub struct Positions(HashMap<(String, i32), Position>);

#[derive(Debug, Clone, Copy, Default)]
struct Position {
    /// The first offset that was read.
    first: i64,
    /// The offset to read next.
    next: i64,
    /// Timestamp of the newest record in milliseconds; `None` if no record has one.
    newest_ms: Option<i64>,
}

impl Positions {
    /// Notes a record that was read, and its timestamp.
    pub fn read(&mut self, topic: &str, partition: i32, offset: i64, written_ms: Option<i64>) {
        let position =
            self.0.entry((topic.to_owned(), partition)).or_insert(Position { first: offset, ..Position::default() });
        // The position of a partition is the offset to read next, not the last one that was read.
        position.next = offset + 1;
        position.newest_ms = position.newest_ms.max(written_ms);
    }

    /// Returns the timestamp of the newest record of each partition, in milliseconds.
    pub fn newest(&self) -> impl Iterator<Item = (&(String, i32), i64)> {
        self.0.iter().filter_map(|(place, position)| Some((place, position.newest_ms?)))
    }

    /// Returns the partitions that were read from their very first record.
    pub fn read_from_start(&self) -> impl Iterator<Item = &(String, i32)> {
        self.0.iter().filter_map(|(place, position)| (position.first == 0).then_some(place))
    }

    /// Returns the offsets to store while only the messages of `left` are unprocessed.
    pub fn without<'m>(&self, left: impl Iterator<Item = &'m Message>) -> TopicPartitionList {
        let mut positions = self.0.clone();
        for message in left {
            if let Some(position) = positions.get_mut(&(message.topic.clone(), message.partition)) {
                position.next = message.offset.min(position.next);
            }
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for ((topic, partition), position) in positions {
            list.add_partition_offset(&topic, partition, Offset::Offset(position.next))
                .expect("an offset that was read is valid");
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Headers;

    fn message(partition: i32, offset: i64) -> Message {
        Message {
            source: "/stampede/payment".to_owned(),
            id: offset.to_string(),
            sequence: 0,
            message_type: "stampede.message.v1.PaymentApproved".to_owned(),
            key: "a".to_owned(),
            payload: Vec::new(),
            traceparent: None,
            topic: "t".to_owned(),
            partition,
            offset,
            headers: Headers::default(),
        }
    }

    fn offsets(list: &TopicPartitionList) -> Vec<Option<i64>> {
        (0..2).map(|partition| list.find_partition("t", partition)?.offset().to_raw()).collect()
    }

    #[test]
    fn a_partition_is_done_up_to_the_first_message_that_is_not() {
        let mut positions = Positions::default();
        for (partition, offset) in [(0, 5), (0, 6), (1, 3), (0, 9), (1, 4)] {
            positions.read("t", partition, offset, None);
        }
        let left = [message(0, 6), message(0, 9)];
        assert_eq!(offsets(&positions.without(left.iter())), [Some(6), Some(5)]);
        assert_eq!(offsets(&positions.without(std::iter::empty())), [Some(10), Some(5)]);
    }
}
