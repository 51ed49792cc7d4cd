//! Up to where each partition of a batch is done, which is what its consumer commits.

use crate::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;

/// The offset to read next, of each partition that a batch has records of.
#[derive(Debug, Default)]
pub struct Positions(HashMap<(String, i32), i64>);

impl Positions {
    /// Takes note of a record that was read.
    pub fn read(&mut self, topic: &str, partition: i32, offset: i64) {
        // The position of a partition is the offset to read next, not the last one that was read.
        self.0.insert((topic.to_owned(), partition), offset + 1);
    }

    /// Returns the offsets to store once nothing but `left` is still to be done.
    pub fn without<'m>(&self, left: impl Iterator<Item = &'m Message>) -> TopicPartitionList {
        let mut positions = self.0.clone();
        for message in left {
            if let Some(position) = positions.get_mut(&(message.topic.clone(), message.partition)) {
                *position = message.offset.min(*position);
            }
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for ((topic, partition), offset) in positions {
            list.add_partition_offset(&topic, partition, Offset::Offset(offset))
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
            positions.read("t", partition, offset);
        }
        let left = [message(0, 6), message(0, 9)];
        assert_eq!(offsets(&positions.without(left.iter())), [Some(6), Some(5)]);
        assert_eq!(offsets(&positions.without(std::iter::empty())), [Some(10), Some(5)]);
    }
}
