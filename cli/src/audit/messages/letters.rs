//! Dead letters: the table of each consumer is authoritative, and Kafka has copies.

use super::meeting::named;
use crate::{
    audit::{Args, named::Named, sources::Sources, verdict::Audit},
    kafka::Carried,
};
use sqlx::{Row, mysql::MySqlRow};
use stampede_proto::messages;
use stampede_vocab::Service;
use std::collections::{HashMap, HashSet};

/// The dead letters of a reader of the topic of a writer.
#[derive(Default)]
pub struct Letters {
    /// Position and id of letters that were never replayed.
    unapplied: HashSet<(i32, i64, String)>,
    /// Ids of discarded letters: their repeats have no effect either.
    discarded_ids: HashSet<String>,
    /// Positions of all letters.
    known: HashSet<(i32, i64)>,
    /// Keys and types of discarded letters.
    discarded: HashSet<(String, String)>,
}

/// A row of the table.
struct Letter {
    partition: i32,
    offset: i64,
    key: String,
    id: String,
    kind: String,
    state: String,
    message_type: String,
}

/// The kind and the state are compared here, so that an unknown one is found.
const LETTERS: &str = "SELECT CAST(partition_no AS SIGNED), CAST(record_offset AS SIGNED), \
     COALESCE(CONVERT(message_key USING utf8mb4), ''), COALESCE(CONVERT(message_id USING utf8mb4), ''), \
     CONVERT(kind USING utf8mb4), CONVERT(state USING utf8mb4), CONVERT(message_type USING utf8mb4) \
     FROM {reader}.dead_letters WHERE topic = ? ORDER BY id";

impl Letter {
    fn read(row: &MySqlRow) -> anyhow::Result<Self> {
        Ok(Self {
            partition: i32::try_from(row.try_get::<i64, _>(0)?)?,
            offset: row.try_get(1)?,
            key: row.try_get(2)?,
            id: row.try_get(3)?,
            kind: row.try_get(4)?,
            state: row.try_get(5)?,
            message_type: row.try_get(6)?,
        })
    }

    fn name(&self) -> String {
        if self.key.is_empty() {
            return format!("{}/{} ({})", self.partition, self.offset, self.kind);
        }
        format!("{} (message {}, {}, {})", self.key, self.id, self.kind, self.state)
    }
}

impl Letters {
    /// Reads the letters of `reader`, and records those without a decision and those that were discarded.
    pub async fn of(
        sources: &Sources,
        args: &Args,
        (writer, reader): (Service, Service),
        audit: &mut Audit,
    ) -> anyhow::Result<Self> {
        let sql = LETTERS.replace("{reader}", &format!("{{{reader}}}"));
        let rows = sources.rows_with(&sql, writer.topic(&args.kafka_topic_prefix)).await?;
        let (mut letters, mut waiting, mut discarded) = (Self::default(), Named::default(), 0);
        for row in &rows {
            let letter = Letter::read(row)?;
            letters.known.insert((letter.partition, letter.offset));
            if letter.state == "REPLAYED" {
                continue;
            }
            if letter.state == "DISCARDED" {
                discarded += 1;
                letters.discarded.insert((letter.key.clone(), letter.message_type.clone()));
                letters.discarded_ids.insert(letter.id.clone());
            } else {
                waiting.push(letter.name());
            }
            // The id of an unreadable record is a hash of it.
            let id = if letter.kind == "UNREADABLE" { String::new() } else { letter.id };
            letters.unapplied.insert((letter.partition, letter.offset, id));
        }
        if discarded > 0 {
            audit.leave_out(format!("{discarded} messages of {writer} in {reader}, which an operator has discarded"));
        }
        audit.breach(7, breach_name(writer, reader), waiting);
        Ok(letters)
    }

    /// Returns whether this record is a dead letter that was never replayed, and so has no effect.
    pub fn has(&self, record: &Carried) -> bool {
        let is_letter = |record: &Carried| {
            self.unapplied.contains(&(record.partition, record.offset, record.id.clone()))
                || self.discarded_ids.contains(&record.id)
        };
        !self.unapplied.is_empty() && is_letter(record)
    }

    /// Returns the keys whose messages of this name were discarded.
    pub fn discarded(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_name = move |(_, message_type): &&(String, String)| messages::name(message_type) == Some(name);
        self.discarded.iter().filter(of_name).map(|(key, _)| key.as_str())
    }

    /// Reports copies in Kafka of letters that the table does not have, as written by a replica of an earlier release.
    pub async fn compare_copies(
        &self,
        sources: &Sources,
        args: &Args,
        (writer, reader): (Service, Service),
        audit: &mut Audit,
    ) -> anyhow::Result<()> {
        let mut copies = sources.kafka.read(writer.dead_letters(&args.kafka_topic_prefix, reader)).await?;
        let mut unknown = Named::default();
        while let Some(batch) = copies.next().await {
            let is_unknown = |copy: &&Carried| copy.copy_of.is_none_or(|place| !self.known.contains(&place));
            unknown.extend(batch.iter().filter(is_unknown).map(|copy| named(&copy.key, &copy.id)));
        }
        copies.finish().await?;
        audit.breach(7, breach_name(writer, reader), unknown);
        Ok(())
    }
}

fn breach_name(writer: Service, reader: Service) -> String {
    format!("a message of {writer} could not be applied by {reader}")
}

/// Checks that no key is parked behind a dead letter.
pub async fn nothing_is_parked(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    for consumer in Service::ALL.into_iter().filter(|service| service.reads().next().is_some()) {
        let rows = sources.rows(&format!("SELECT message_key, topic FROM {{{consumer}}}.inbox_parked")).await?;
        let named = rows
            .iter()
            .map(|row| Ok(format!("{} (on {})", row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?)))
            .collect::<anyhow::Result<_>>()?;
        audit.breach(7, format!("messages are set aside behind a dead letter in {consumer}"), named);
    }
    Ok(())
}

/// Counts the letters to be replayed, by consumer, without zeroes.
pub async fn to_be_replayed(sources: &Sources) -> anyhow::Result<HashMap<Service, i64>> {
    let mut waiting = HashMap::new();
    for consumer in Service::ALL.into_iter().filter(|service| service.reads().next().is_some()) {
        let count =
            sources.count(&format!("SELECT COUNT(*) FROM {{{consumer}}}.dead_letters WHERE state = 'REPLAY'")).await?;
        if count > 0 {
            waiting.insert(consumer, count);
        }
    }
    Ok(waiting)
}
