//! Matches each message of an outbox with its record in Kafka. Both are read side by side, so only unmatched ones are
//! kept in memory, and hashes of the ids of the others.
//!
//! A message has two ids: its own, and the number of its row, which a relay sends as the id while consumers of an
//! earlier release run. Its record has either, and a repeat may have the other one, if the relay was restarted in
//! between.

use super::outbox::{Content, Written, hash};
use crate::{audit::named::Named, kafka::Carried};
use std::collections::{HashMap, HashSet};

/// A message without a record so far.
pub struct Waiting {
    pub number: u64,
    pub partition: u16,
    pub key: String,
    pub written_us: i64,
    content: Content,
}

/// A record without a message so far.
pub struct Seen {
    pub content: Content,
    pub written_us: i64,
}

/// The comparison so far.
#[derive(Default)]
pub struct Meeting {
    messages: HashMap<String, Waiting>,
    /// Ids of these messages by their row numbers, where the two differ.
    numbers: HashMap<String, String>,
    records: HashMap<String, Seen>,
    pairs: usize,
    /// Hashes of both ids of each pair.
    met: HashSet<u64>,
    /// Records whose id was matched before: repeats, unless they differ.
    again: HashMap<String, Vec<Content>>,
    /// Messages that differ between Kafka and the outbox.
    pub altered: Named,
    /// Ids of two different messages.
    pub reused: Named,
}

impl Meeting {
    /// Returns how many messages are both in the outbox and in Kafka.
    pub fn met(&self) -> usize {
        self.pairs
    }

    /// Adds a message of the outbox.
    pub fn message(&mut self, message: &Written) {
        let (id, key) = (&message.id, &message.content.key);
        if self.met.contains(&hash(id)) || self.messages.contains_key(id) {
            self.reused.push(named(key, id));
            return;
        }
        let number = message.number.to_string();
        let seen: Vec<Seen> = [id, &number].into_iter().filter_map(|name| self.records.remove(name)).collect();
        if let Some((first, others)) = seen.split_first() {
            self.meet((id, message.number), &message.content, &first.content);
            let others = others.iter().filter(|other| other.content != first.content);
            self.reused.extend(others.map(|other| named(&other.content.key, id)));
            return;
        }
        if *id != number {
            self.numbers.insert(number, id.clone());
        }
        let waiting = Waiting {
            number: message.number,
            partition: message.partition,
            key: key.clone(),
            written_us: message.written_us,
            content: message.content.clone(),
        };
        self.messages.insert(id.clone(), waiting);
    }

    /// Adds a record of Kafka.
    pub fn record(&mut self, record: &Carried) {
        let id = &self.numbers.get(&record.id).unwrap_or(&record.id).clone();
        let content = Content::of_record(record);
        if self.met.contains(&hash(id)) {
            let said = self.again.entry(id.clone()).or_default();
            if !said.contains(&content) {
                said.push(content);
            }
        } else if let Some(waiting) = self.messages.remove(id) {
            self.numbers.remove(&waiting.number.to_string());
            self.meet((id, waiting.number), &waiting.content, &content);
        } else if let Some(first) = self.records.get(id) {
            if first.content != content {
                self.reused.push(named(&record.key, id));
            }
        } else {
            self.records.insert(id.clone(), Seen { content, written_us: record.written_us });
        }
    }

    fn meet(&mut self, (id, number): (&str, u64), written: &Content, carried: &Content) {
        self.pairs += 1;
        self.met.extend([hash(id), hash(&number.to_string())]);
        let differences = written.differences(carried);
        if !differences.is_empty() {
            self.altered.push(format!("{} (message {id}: another {})", written.key, differences.join(", ")));
        }
    }

    /// Returns whether some records have the id of an earlier pair. Each message must then be passed to
    /// [`Meeting::compare_again`].
    pub fn has_repeats(&self) -> bool {
        !self.again.is_empty()
    }

    /// Compares a message with the repeated records of its ids.
    pub fn compare_again(&mut self, message: &Written) {
        let names = [message.id.clone(), message.number.to_string()];
        let said: Vec<Content> = names.iter().filter_map(|name| self.again.remove(name)).flatten().collect();
        let others = said.iter().filter(|content| **content != message.content);
        self.reused.extend(others.map(|other| named(&other.key, &message.id)));
    }

    /// Returns the messages without a record, by id, and the records without a message.
    pub fn alone(&mut self) -> (HashMap<String, Waiting>, HashMap<String, Seen>) {
        (std::mem::take(&mut self.messages), std::mem::take(&mut self.records))
    }
}

/// Returns the id of a message with the key of its aggregate.
pub fn named(key: &str, id: &str) -> String {
    format!("{key} (message {id})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(key: &str, version: i64) -> Content {
        let (source, message_type) = ("/stampede/order".to_owned(), "OrderPlaced".to_owned());
        Content { source, key: key.to_owned(), message_type, version, payload: hash(&Vec::<u8>::new()) }
    }

    fn written(id: &str, key: &str, version: i64) -> Written {
        let (number, id, content) = (id.parse().unwrap_or(7), id.to_owned(), content(key, version));
        Written { number, id, partition: 0, payload: Vec::new(), content, written_us: 1 }
    }

    fn carried(id: &str, key: &str, version: i64) -> Carried {
        let Content { source, key, message_type, .. } = content(key, version);
        Carried { id: id.to_owned(), source, key, message_type, sequence: version, ..Carried::default() }
    }

    #[test]
    fn what_has_met_is_forgotten_whichever_came_first() {
        let mut meeting = Meeting::default();
        meeting.message(&written("1", "a", 1));
        meeting.record(&carried("1", "a", 1));
        meeting.record(&carried("2", "b", 1));
        meeting.message(&written("2", "b", 1));
        let (messages, records) = meeting.alone();
        assert_eq!((meeting.met(), messages.len(), records.len()), (2, 0, 0));
        assert!(meeting.altered.is_empty() && meeting.reused.is_empty() && !meeting.has_repeats());
    }

    #[test]
    fn a_message_has_two_names_whichever_its_record_and_the_repeats_have() {
        let record = |name: &str| carried(name, "a", 1);
        for (before, after) in [(vec!["7"], vec!["own", "7"]), (vec!["own", "7"], vec![]), (vec![], vec!["7", "own"])] {
            let mut meeting = Meeting::default();
            before.iter().for_each(|name| meeting.record(&record(name)));
            meeting.message(&written("own", "a", 1));
            after.iter().for_each(|name| meeting.record(&record(name)));
            meeting.compare_again(&written("own", "a", 1));
            let (messages, records) = meeting.alone();
            assert_eq!((meeting.met(), messages.len(), records.len()), (1, 0, 0), "{before:?}, {after:?}");
            assert!(meeting.altered.is_empty() && meeting.reused.is_empty() && !meeting.has_repeats());
        }
    }

    #[test]
    fn another_message_under_the_number_of_a_row_is_named() {
        let mut meeting = Meeting::default();
        meeting.message(&written("own", "a", 1));
        meeting.record(&carried("own", "a", 1));
        meeting.record(&carried("7", "b", 1));
        meeting.compare_again(&written("own", "a", 1));
        assert_eq!(meeting.reused.names(), ["b (message own)"]);
        assert_eq!(meeting.met(), 1);
    }

    #[test]
    fn what_kafka_has_otherwise_is_named_with_what_differs() {
        let mut meeting = Meeting::default();
        meeting.message(&written("1", "a", 1));
        meeting.record(&Carried { payload: vec![7], ..carried("1", "a", 2) });
        assert_eq!(meeting.altered.names(), ["a (message 1: another version, payload)"]);
    }

    #[test]
    fn who_meets_nobody_stays() {
        let mut meeting = Meeting::default();
        meeting.message(&written("1", "a", 1));
        meeting.record(&carried("2", "b", 1));
        let (messages, records) = meeting.alone();
        assert!(messages.contains_key("1") && records.contains_key("2"));
    }

    #[test]
    fn a_repeat_is_no_reuse_but_another_message_under_the_id_is() {
        let mut meeting = Meeting::default();
        meeting.message(&written("1", "a", 1));
        for repeat in [carried("1", "a", 1), carried("1", "a", 1), carried("1", "b", 1)] {
            meeting.record(&repeat);
        }
        assert!(meeting.has_repeats());
        meeting.compare_again(&written("1", "a", 1));
        assert_eq!(meeting.reused.names(), ["b (message 1)"]);
        assert!(!meeting.has_repeats());
    }

    #[test]
    fn an_id_is_reused_before_its_message_is_read_and_in_the_outbox_too() {
        let mut meeting = Meeting::default();
        meeting.record(&carried("1", "a", 1));
        meeting.record(&carried("1", "a", 1));
        assert!(meeting.reused.is_empty());
        meeting.record(&carried("1", "b", 1));
        meeting.message(&written("1", "a", 1));
        meeting.message(&written("1", "c", 1));
        meeting.message(&written("2", "d", 1));
        meeting.message(&written("2", "d", 1));
        assert_eq!(meeting.reused.names(), ["b (message 1)", "c (message 1)", "d (message 2)"]);
    }
}
