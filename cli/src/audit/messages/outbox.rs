//! The outbox of a service, read in pages by its primary key: each is a short statement.

use crate::{audit::sources::Sources, kafka::Carried};
use sqlx::{Row as _, mysql::MySqlRow};
use stampede_vocab::Service;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Rows of one page.
const PAGE: usize = 1_000;

/// The content of a message, which must be equal in the outbox and in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The writer.
    pub source: String,
    /// The aggregate.
    pub key: String,
    pub message_type: String,
    /// Version of the aggregate.
    pub version: i64,
    /// Hash of the payload.
    pub payload: u64,
}

impl Content {
    /// Returns the content of a record of Kafka.
    pub fn of_record(record: &Carried) -> Self {
        Self {
            source: record.source.clone(),
            key: record.key.clone(),
            message_type: record.message_type.clone(),
            version: record.sequence,
            payload: hash(&record.payload),
        }
    }

    /// Returns the differences, in words; empty if there are none.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            ("source", self.source != other.source),
            ("key", self.key != other.key),
            ("type", self.message_type != other.message_type),
            ("version", self.version != other.version),
            ("payload", self.payload != other.payload),
        ];
        parts.into_iter().filter_map(|(part, differs)| differs.then_some(part)).collect()
    }
}

/// Returns a hash that is stable during the audit.
pub fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A message in its outbox.
#[derive(Debug, Clone)]
pub struct Written {
    /// Position in the order of sending.
    pub number: u64,
    /// The CloudEvents id. A replica of an earlier release writes only the number.
    pub id: String,
    pub partition: u16,
    pub payload: Vec<u8>,
    pub content: Content,
    pub written_us: i64,
}

impl Written {
    fn read(row: &MySqlRow, writer: Service) -> anyhow::Result<Self> {
        let (number, id): (u64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let payload: Vec<u8> = row.try_get(6)?;
        let content = Content {
            source: writer.source(),
            key: row.try_get(3)?,
            version: row.try_get(4)?,
            message_type: row.try_get(5)?,
            payload: hash(&payload),
        };
        let id = id.unwrap_or_else(|| number.to_string());
        Ok(Self { number, id, partition: row.try_get(2)?, payload, content, written_us: row.try_get(7)? })
    }
}

/// The pages of an outbox, oldest first.
pub struct Pages<'s> {
    sources: &'s Sources,
    writer: Service,
    after: u64,
    /// When the last row read was written; the maximum once all are read.
    reached_us: i64,
}

impl<'s> Pages<'s> {
    /// Starts at the oldest message of `writer` that is kept.
    pub fn of(sources: &'s Sources, writer: Service) -> Self {
        Self { sources, writer, after: 0, reached_us: i64::MIN }
    }

    /// Returns whether everything written until then is read.
    pub fn has_reached(&self, written_us: i64) -> bool {
        self.reached_us > written_us
    }

    /// Returns the next page; an empty one at the end.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Written>> {
        let sql = format!(
            "SELECT id, message_id, partition_no, aggregateid, aggregate_version, type, payload, created_us \
             FROM {{{}}}.outbox WHERE id > ? ORDER BY id LIMIT {PAGE}",
            self.writer
        );
        let rows = self.sources.rows_with(&sql, self.after).await?;
        let page = rows.iter().map(|row| Written::read(row, self.writer)).collect::<anyhow::Result<Vec<_>>>()?;
        match page.last() {
            Some(last) => (self.after, self.reached_us) = (last.number, last.written_us),
            None => self.reached_us = i64::MAX,
        }
        Ok(page)
    }
}

/// The number up to which each partition of an outbox is sent.
pub struct Floors(HashMap<u16, u64>);

impl Floors {
    /// Reads the floors of `writer`. Must be called before its topic is read, so that messages below them are in Kafka.
    pub async fn of(sources: &Sources, writer: Service) -> anyhow::Result<Self> {
        let sql =
            format!("SELECT partition_no, CAST(COALESCE(floor_id, 0) AS UNSIGNED) FROM {{{writer}}}.outbox_leases");
        let rows = sources.rows(&sql).await?;
        let floors = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<anyhow::Result<_>>()?;
        Ok(Self(floors))
    }

    /// Returns whether this message was sent.
    pub fn cover(&self, partition: u16, number: u64) -> bool {
        self.0.get(&partition).is_some_and(|floor| number <= *floor)
    }
}

/// Counts the messages of `writer` that are not known to be sent. Reads only rows above the lowest floor.
pub async fn unsent(sources: &Sources, writer: Service) -> anyhow::Result<i64> {
    let sql = format!(
        "SELECT COUNT(*) FROM {{{writer}}}.outbox o JOIN {{{writer}}}.outbox_leases l ON l.partition_no = o.partition_no \
         WHERE o.id > (SELECT COALESCE(MIN(COALESCE(floor_id, 0)), 0) FROM {{{writer}}}.outbox_leases) \
         AND o.id > COALESCE(l.floor_id, 0)"
    );
    sources.count(&sql).await
}
