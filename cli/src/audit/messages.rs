//! Messages: each was sent, is in Kafka, came in order, and took effect once at each consumer; none is a dead letter.

use super::{
    Args,
    kafka::{Carried, read_topic},
    sources::Sources,
    verdict::Audit,
};
use sqlx::Row;
use stampede_vocab::{EventId, Topic};
use std::collections::{HashMap, HashSet};

/// Compares every outbox with its topic, and every topic with the inboxes of its consumers.
pub async fn compare(sources: &Sources, args: &Args, audit: &mut Audit) -> anyhow::Result<()> {
    for topic in Topic::ALL {
        let carried = read(args, topic.name(&args.kafka_topic_prefix)).await?;
        audit.figure(7, format!("messages on {topic}"), i64::try_from(carried.len())?);
        outbox_is_in_kafka(sources, topic, &carried, audit).await?;
        order_is_kept(topic, &carried, audit);
        for consumer in topic.consumers() {
            every_message_took_effect(sources, topic, consumer, audit).await?;
            let dead = read(args, topic.dead_letters(&args.kafka_topic_prefix, consumer)).await?;
            let named = dead.iter().map(|letter| format!("{} (message {})", letter.key, letter.id)).collect();
            audit.breach(7, format!("a message of {topic} could not be applied by {consumer}"), named);
        }
    }
    opened_once(sources, audit).await
}

async fn read(args: &Args, topic: String) -> anyhow::Result<Vec<Carried>> {
    let brokers = args.kafka_brokers.clone();
    tokio::task::spawn_blocking(move || read_topic(&brokers, &topic)).await?
}

async fn outbox_is_in_kafka(
    sources: &Sources,
    topic: Topic,
    carried: &[Carried],
    audit: &mut Audit,
) -> anyhow::Result<()> {
    let there: HashSet<u64> = carried.iter().map(|message| message.id).collect();
    let rows = sources.rows(&format!("SELECT id, aggregateid, sent_us IS NULL FROM {{{topic}}}.outbox")).await?;
    let (mut unsent, mut lost) = (Vec::new(), Vec::new());
    for row in &rows {
        let (id, key): (u64, String) = (row.try_get(0)?, row.try_get(1)?);
        let is_unsent: bool = row.try_get(2)?;
        if is_unsent {
            unsent.push(format!("{key} (message {id})"));
        } else if !there.contains(&id) {
            lost.push(format!("{key} (message {id})"));
        }
    }
    audit.breach(7, format!("a message of {topic} was never sent"), unsent);
    audit.breach(4, format!("a message of {topic} was sent, but is not in Kafka"), lost);
    Ok(())
}

/// Among first deliveries, the versions of one aggregate grow. (A repeat may come later, and is dropped by its reader.)
fn order_is_kept(topic: Topic, carried: &[Carried], audit: &mut Audit) {
    let named = out_of_order(carried);
    audit.breach(7, format!("messages of one aggregate are out of order on {topic}"), named);
}

fn out_of_order(carried: &[Carried]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, i64> = HashMap::new();
    let mut named = Vec::new();
    for message in carried.iter().filter(|message| seen.insert(message.id)) {
        let before = last.insert(&message.key, message.sequence).unwrap_or(i64::MIN);
        if before > message.sequence {
            named.push(format!("{} (version {} after {before})", message.key, message.sequence));
        }
    }
    named
}

async fn every_message_took_effect(
    sources: &Sources,
    topic: Topic,
    consumer: &str,
    audit: &mut Audit,
) -> anyhow::Result<()> {
    let rows = sources
        .rows(&format!(
            "SELECT o.id, o.aggregateid FROM {{{topic}}}.outbox o LEFT JOIN {{{consumer}}}.inbox i \
             ON i.source = '/stampede/{topic}' AND i.message_id = o.id WHERE i.message_id IS NULL"
        ))
        .await?;
    let named = rows
        .iter()
        .map(|row| Ok(format!("{} (message {})", row.try_get::<String, _>(1)?, row.try_get::<u64, _>(0)?)))
        .collect::<anyhow::Result<_>>()?;
    audit.breach(7, format!("a message of {topic} did not take effect in {consumer}"), named);
    Ok(())
}

/// The messages of an event's transitions, and which events must have told of it.
const TRANSITIONS: [(&str, &str); 2] = [
    ("EventOpened", "SELECT id FROM {event}.events WHERE opened_at_us IS NOT NULL"),
    ("EventClosed", "SELECT id FROM {event}.events WHERE state = 'CLOSED'"),
];

/// Each event told exactly once that it opened, and once that it closed.
async fn opened_once(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    for (message, moved) in TRANSITIONS {
        let told = sources
            .rows(&format!("SELECT aggregateid FROM {{event}}.outbox WHERE type = 'stampede.message.v1.{message}'"))
            .await?;
        let mut counts: HashMap<String, u32> = HashMap::new();
        for row in &told {
            *counts.entry(row.try_get(0)?).or_default() += 1;
        }
        for row in sources.rows(moved).await? {
            counts.entry(EventId::try_from_bytes(row.try_get(0)?)?.to_string()).or_default();
        }
        let wrong = counts.into_iter().filter(|(_, count)| *count != 1);
        let named = wrong.map(|(event, count)| format!("{event} ({count} messages)")).collect();
        audit.breach(6, format!("an event did not tell exactly once by {message}"), named);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(id: u64, key: &str, sequence: i64) -> Carried {
        Carried { id, key: key.to_owned(), sequence }
    }

    #[test]
    fn a_repeat_is_not_out_of_order_but_a_swap_is() {
        let in_order = [carried(1, "a", 1), carried(2, "a", 2), carried(1, "a", 1), carried(3, "b", 1)];
        assert!(out_of_order(&in_order).is_empty());
        let swapped = [carried(2, "a", 2), carried(1, "a", 1)];
        assert_eq!(out_of_order(&swapped), ["a (version 1 after 2)"]);
    }
}
