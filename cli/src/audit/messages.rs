//! Messages: each was sent, is in Kafka, came in order, and took effect once at each consumer; none is a dead letter.
//!
//! Compared is what an outbox still has; see [`Retention`].

use super::{
    Args,
    kafka::{Carried, Contents, read_topic},
    retention::{Retention, readable},
    sources::Sources,
    verdict::Audit,
};
use sqlx::Row;
use stampede_proto::messages;
use stampede_vocab::{EventId, Service, Timestamp};
use std::collections::{HashMap, HashSet};

/// How many messages were compared.
#[derive(Default)]
struct Compared {
    sent: usize,
    in_kafka: usize,
}

/// Compares every outbox with its topic, and every topic with the inboxes of its consumers.
pub async fn compare(sources: &Sources, args: &Args, retention: Retention, audit: &mut Audit) -> anyhow::Result<()> {
    retention.note(sources, audit).await?;
    let mut compared = Compared::default();
    for topic in Service::ALL {
        let contents = read(args, topic.topic(&args.kafka_topic_prefix)).await?;
        audit.figure(7, format!("messages on {topic}"), i64::try_from(contents.messages.len())?);
        outbox_is_in_kafka(sources, topic, &contents, &mut compared, audit).await?;
        order_is_kept(topic, &contents.messages, audit);
        for reader in topic.readers() {
            every_message_took_effect(sources, topic, reader, retention, audit).await?;
            let dead = read(args, topic.dead_letters(&args.kafka_topic_prefix, reader)).await?.messages;
            let named = dead.iter().map(|letter| format!("{} (message {})", letter.key, letter.id)).collect();
            audit.breach(7, format!("a message of {topic} could not be applied by {reader}"), named);
        }
    }
    audit.figure(4, "messages sent", i64::try_from(compared.sent)?);
    audit.figure(4, "of them in Kafka", i64::try_from(compared.in_kafka)?);
    nothing_is_parked(sources, audit).await?;
    published_once(sources, retention, audit).await
}

async fn read(args: &Args, topic: String) -> anyhow::Result<Contents> {
    let brokers = args.kafka_brokers.clone();
    tokio::task::spawn_blocking(move || read_topic(&brokers, &topic)).await?
}

async fn outbox_is_in_kafka(
    sources: &Sources,
    topic: Service,
    contents: &Contents,
    compared: &mut Compared,
    audit: &mut Audit,
) -> anyhow::Result<()> {
    let there: HashSet<u64> = contents.messages.iter().map(|message| message.id).collect();
    let rows = sources
        .rows(&format!(
            "SELECT o.id, o.aggregateid, u.id IS NOT NULL, o.created_us \
             FROM {{{topic}}}.outbox o LEFT JOIN {{{topic}}}.outbox_unsent u ON u.id = o.id"
        ))
        .await?;
    let (mut unsent, mut lost, mut too_old) = (Vec::new(), Vec::new(), 0);
    for row in &rows {
        let (id, key): (u64, String) = (row.try_get(0)?, row.try_get(1)?);
        let (is_unsent, created_us): (bool, i64) = (row.try_get(2)?, row.try_get(3)?);
        let is_there = there.contains(&id);
        // It was written to Kafka after it was written here.
        let may_be_gone = contents.whole_since.is_some_and(|since| Timestamp::from_micros(created_us) < since);
        if is_unsent {
            unsent.push(format!("{key} (message {id})"));
        } else if is_there || !may_be_gone {
            compared.sent += 1;
            compared.in_kafka += usize::from(is_there);
            if !is_there {
                lost.push(format!("{key} (message {id})"));
            }
        } else {
            too_old += 1;
        }
    }
    if let Some(since) = contents.whole_since.filter(|_| too_old > 0) {
        audit.leave_out(format!(
            "{too_old} messages of {topic} from before {}: Kafka does not keep them any more",
            readable(since)
        ));
    }
    audit.breach(7, format!("a message of {topic} was never sent"), unsent);
    audit.breach(4, format!("a message of {topic} was sent, but is not in Kafka"), lost);
    Ok(())
}

/// Checks that among first deliveries the versions of one aggregate grow. (A duplicate may come later; its reader drops
/// it.)
fn order_is_kept(topic: Service, carried: &[Carried], audit: &mut Audit) {
    let named = out_of_order(carried);
    audit.breach(7, format!("messages of one aggregate are out of order on {topic}"), named);
}

/// Two messages with one version are out of order too: which of them is later is undefined.
fn out_of_order(carried: &[Carried]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, i64> = HashMap::new();
    let mut named = Vec::new();
    for message in carried.iter().filter(|message| seen.insert(message.id)) {
        let before = last.insert(&message.key, message.sequence).unwrap_or(i64::MIN);
        if before >= message.sequence {
            named.push(format!("{} (version {} after {before})", message.key, message.sequence));
        }
    }
    named
}

async fn every_message_took_effect(
    sources: &Sources,
    topic: Service,
    reader: Service,
    retention: Retention,
    audit: &mut Audit,
) -> anyhow::Result<()> {
    let rows = sources.rows(&format!("SELECT o.id, o.aggregateid {}", retention.unread(topic, reader))).await?;
    let named = rows
        .iter()
        .map(|row| Ok(format!("{} (message {})", row.try_get::<String, _>(1)?, row.try_get::<u64, _>(0)?)))
        .collect::<anyhow::Result<_>>()?;
    audit.breach(7, format!("a message of {topic} did not take effect in {reader}"), named);
    Ok(())
}

/// Checks that no key is parked behind a dead letter.
async fn nothing_is_parked(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
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

/// The messages of an event's transitions, and when each event went through it.
const TRANSITIONS: [(&str, &str); 3] = [
    ("EventOpened", "SELECT id, opened_at_us FROM {event}.events WHERE opened_at_us IS NOT NULL"),
    ("EventClosed", "SELECT id, closed_at_us FROM {event}.events WHERE state = 'CLOSED'"),
    ("EventCancelled", "SELECT id, closed_at_us FROM {event}.events WHERE state = 'CANCELLED'"),
];

/// Checks that each transition of an event was published exactly once. Of old ones only that it was not twice, since
/// the message may be purged.
async fn published_once(sources: &Sources, retention: Retention, audit: &mut Audit) -> anyhow::Result<()> {
    for (message, moved) in TRANSITIONS {
        let published = sources
            .rows(&format!("SELECT aggregateid FROM {{event}}.outbox WHERE type = '{}.{message}'", messages::PACKAGE))
            .await?;
        let mut counts: HashMap<String, u32> = HashMap::new();
        for row in &published {
            *counts.entry(row.try_get(0)?).or_default() += 1;
        }
        for row in sources.rows(moved).await? {
            let event = EventId::try_from_bytes(row.try_get(0)?)?.to_string();
            let moved_at = Timestamp::from_micros(row.try_get(1)?);
            if moved_at >= retention.outboxes_since {
                counts.entry(event).or_default();
            }
        }
        let wrong = counts.into_iter().filter(|(_, count)| *count != 1);
        let named = wrong.map(|(event, count)| format!("{event} ({count} messages)")).collect();
        audit.breach(6, format!("an event was not published exactly once as {message}"), named);
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

    #[test]
    fn two_messages_with_one_version_are_out_of_order() {
        assert_eq!(out_of_order(&[carried(1, "a", 2), carried(2, "a", 2)]), ["a (version 2 after 2)"]);
    }
}
