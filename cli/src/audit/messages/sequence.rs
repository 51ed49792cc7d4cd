//! Checks that the messages of an aggregate are in the order of its versions.

use super::outbox::hash;
use crate::{audit::named::Named, kafka::Carried};
use std::collections::HashMap;

/// The messages of one aggregate so far.
#[derive(Default)]
struct Versions {
    version: i64,
    /// Hashes of their contents.
    seen: Vec<u64>,
}

/// The versions of each aggregate of a topic.
#[derive(Default)]
pub struct Sequence {
    by_key: HashMap<u64, Versions>,
    /// Messages after a later one.
    pub out_of_order: Named,
}

impl Sequence {
    /// Adds the next record. A message may be repeated: a relay that takes a partition over repeats, and a service that
    /// gets a request twice answers twice. Two messages with one version are out of order too, since which of them is
    /// later is undefined.
    pub fn record(&mut self, record: &Carried) {
        let Carried { key, message_type, sequence, payload, .. } = record;
        let content = hash(&(message_type, payload));
        let versions = self.by_key.entry(hash(key)).or_default();
        if versions.seen.is_empty() || *sequence > versions.version {
            versions.version = *sequence;
            versions.seen.push(content);
        } else if !versions.seen.contains(&content) {
            self.out_of_order.push(format!("{key} (version {sequence} after {})", versions.version));
            versions.seen.push(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out_of_order(records: &[(&str, i64, &str)]) -> Vec<String> {
        let mut sequence = Sequence::default();
        for (key, version, says) in records {
            let payload = says.as_bytes().to_vec();
            sequence.record(&Carried { key: (*key).to_owned(), sequence: *version, payload, ..Carried::default() });
        }
        sequence.out_of_order.names().to_vec()
    }

    #[test]
    fn a_repeat_is_not_out_of_order_but_a_swap_is() {
        let in_order =
            [("a", 1, "placed"), ("a", 2, "paid"), ("a", 1, "placed"), ("b", 1, "placed"), ("a", 3, "ended")];
        assert!(out_of_order(&in_order).is_empty());
        assert_eq!(out_of_order(&[("a", 2, "paid"), ("a", 1, "placed")]), ["a (version 1 after 2)"]);
    }

    #[test]
    fn two_messages_with_one_version_are_out_of_order() {
        assert_eq!(out_of_order(&[("a", 2, "paid"), ("a", 2, "ended")]), ["a (version 2 after 2)"]);
    }

    #[test]
    fn an_answer_that_is_given_again_is_not_out_of_order_whatever_its_version() {
        assert!(out_of_order(&[("a", 2, "approved"), ("a", 3, "refunded"), ("a", 3, "approved")]).is_empty());
    }
}
