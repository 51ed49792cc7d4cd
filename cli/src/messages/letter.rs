//! A dead letter in short, as lists and plans have it.

use super::{
    id::{LetterId, by_name},
    text::{age, printable, seconds_since, time},
};
use crate::output::{row, table};
use comfy_table::Table;
use serde::Serialize;
use sqlx::FromRow;
use stampede_proto::messages;
use stampede_vocab::{Service, Timestamp};

/// Longest reason in a table.
const REASON: usize = 60;

/// The columns of [`Row`].
pub const COLUMNS: &str = "id, kind, state, topic, partition_no, record_offset, message_key, message_type, reason, \
     set_aside_us, attempts, last_error";

/// The stored columns of a dead letter.
#[derive(Debug, FromRow)]
pub struct Row {
    id: i64,
    kind: String,
    state: String,
    topic: String,
    partition_no: i32,
    record_offset: i64,
    message_key: String,
    message_type: String,
    reason: String,
    set_aside_us: i64,
    attempts: i32,
    last_error: Option<String>,
}

/// A dead letter in short.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub id: LetterId,
    #[serde(serialize_with = "by_name")]
    pub consumer: Service,
    /// POISON, PARKED or UNREADABLE.
    pub kind: String,
    /// WAITING, REPLAY, REPLAYED or DISCARDED.
    pub state: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Empty for an UNREADABLE one.
    pub key: String,
    /// Full name; empty for an UNREADABLE one.
    pub message_type: String,
    pub set_aside_time: String,
    pub age_s: f64,
    pub reason: String,
    /// Number of its replays; `last_error` is why the last one failed.
    pub attempts: i32,
    pub last_error: Option<String>,
}

impl Summary {
    /// Returns a row of this consumer in short, as of now.
    pub fn of(consumer: Service, row: Row, now: Timestamp) -> Self {
        Self {
            id: LetterId { consumer, row: row.id },
            consumer,
            kind: row.kind,
            state: row.state,
            topic: row.topic,
            partition: row.partition_no,
            offset: row.record_offset,
            key: row.message_key,
            message_type: row.message_type,
            set_aside_time: time(row.set_aside_us),
            age_s: seconds_since(row.set_aside_us, now),
            reason: row.reason,
            attempts: row.attempts,
            last_error: row.last_error,
        }
    }

    /// Returns whether it is a message: a record that is none can neither be replayed nor has anything behind it.
    pub fn is_message(&self) -> bool {
        self.kind != "UNREADABLE"
    }

    /// Returns the name of its message within the package; the full one of another package, `-` for none.
    pub fn name(&self) -> String {
        let name = messages::name(&self.message_type).unwrap_or(&self.message_type);
        if name.is_empty() { "-".to_owned() } else { printable(name, 128) }
    }
}

/// Returns the letters as a table for people.
pub fn letters_table(letters: &[Summary]) -> Table {
    let mut all = table(["id", "state", "kind", "message", "key", "topic and offset", "age", "why"], []);
    for letter in letters {
        let (id, name, key) = (letter.id.to_string(), letter.name(), printable(&letter.key, 64));
        let place = format!("{} {}/{}", letter.topic, letter.partition, letter.offset);
        let why = printable(letter.last_error.as_ref().unwrap_or(&letter.reason), REASON);
        let names = [&id, &letter.state, &letter.kind, &name, &key, &place, &age(letter.age_s), &why];
        all.add_row(row(names.map(String::as_str), std::iter::empty::<&str>()));
    }
    all
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a letter of the payment service.
    pub fn letter(row: i64, message: &str, key: &str) -> Summary {
        let row = Row {
            id: row,
            kind: "POISON".to_owned(),
            state: "WAITING".to_owned(),
            topic: "stampede.order".to_owned(),
            partition_no: 3,
            record_offset: 17,
            message_key: key.to_owned(),
            message_type: format!("{}.{message}", messages::PACKAGE),
            reason: "it says\nso itself".to_owned(),
            set_aside_us: 0,
            attempts: 0,
            last_error: None,
        };
        Summary::of(Service::Payment, row, Timestamp::from_micros(7_200_000_000))
    }

    #[test]
    fn a_letter_is_one_line_for_people() {
        let text = letters_table(&[letter(7, "PaymentRequested", "ord_1")]).to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        for part in ["payment-7", "WAITING", "POISON", " PaymentRequested ", "ord_1", "stampede.order 3/17", "2 h"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("it says so itself"), "{text}");
    }

    #[test]
    fn a_letter_is_an_object_in_json() {
        let json = serde_json::to_value(letter(7, "PaymentRequested", "ord_1")).unwrap();
        assert_eq!((&json["id"], &json["consumer"]), (&"payment-7".into(), &"payment".into()));
        assert_eq!((&json["set_aside_time"], &json["age_s"]), (&"1970-01-01T00:00:00Z".into(), &7_200.0.into()));
    }
}
