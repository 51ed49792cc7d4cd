//! Sets records aside: writes dead letters and parks their keys, in one transaction.

use crate::{
    chain::Chains,
    letter::{self, Kind, Letter, Outcome},
};
use opentelemetry::{KeyValue, global, metrics::Counter};
use stampede_db::{Database, DbError};
use stampede_vocab::{Service, Timestamp};
use std::sync::Arc;
use tokio::sync::Notify;

/// Most letters of one transaction.
pub const LETTERS_PER_TRANSACTION: usize = 100;

/// Writes the letters of one consumer.
pub struct Letters {
    db: Database,
    consumer: Service,
    counted: Counter<u64>,
    /// Woken when there are new ones.
    written: Arc<Notify>,
}

impl Letters {
    /// Writes what `consumer` reads from `topics` and cannot apply. The counter of each topic starts at 0 here: an
    /// alert on its increase would miss the first dead letter if the series began with it.
    pub fn new(db: Database, consumer: Service, topics: &[String], written: Arc<Notify>) -> Self {
        let counted = global::meter("stampede.inbox")
            .u64_counter("stampede_inbox_dead_letters")
            .with_description("Messages that were set aside, unreadable records among them")
            .build();
        let letters = Self { db, consumer, counted, written };
        topics.iter().for_each(|topic| letters.count(topic, 0));
        letters
    }

    /// Writes letters and parks their keys in one transaction. Returns the outcome of each.
    ///
    /// The commit proves that the database works, and so that the message was at fault.
    pub async fn set_aside(&self, letters: &Arc<Vec<Letter>>) -> Result<Vec<Outcome>, DbError> {
        let (written, consumer) = (letters.clone(), self.consumer);
        let outcomes = self.db.transact("set_aside", move |conn| {
            let letters = written.clone();
            Box::pin(async move {
                let now_us = Timestamp::now().micros();
                let mut chains = Chains::lock(conn, &letters).await?;
                let mut outcomes = Vec::with_capacity(letters.len());
                for letter in letters.iter() {
                    outcomes.push(letter::set_aside(conn, consumer.name(), letter, &mut chains, now_us).await?);
                }
                Ok(outcomes)
            })
        });
        let outcomes: Vec<Outcome> = outcomes.await?;
        for (letter, _) in letters.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Written) {
            self.log(letter);
        }
        self.written.notify_one();
        Ok(outcomes)
    }

    fn log(&self, letter: &Letter) {
        self.count(&letter.topic, 1);
        let done = match letter.kind {
            Kind::Poison => "message cannot be applied, set aside as a dead letter",
            Kind::Parked => "message is behind a dead letter of its key, set aside with it",
            Kind::Unreadable => "message cannot be read, set aside as a dead letter",
        };
        tracing::error!(
            messaging.topic = %letter.topic,
            messaging.partition = letter.partition,
            messaging.offset = letter.offset,
            messaging.key = %letter.key,
            messaging.message_type = %letter.message_type,
            error.cause = %letter.reason,
            "{done}"
        );
    }

    fn count(&self, topic: &str, letters: u64) {
        self.counted.add(letters, &[KeyValue::new("topic", topic.to_owned())]);
    }
}
