//! `stampede messages lag`: counts messages to be sent, to be read, and to be decided on.

use super::{
    id::{by_name, consumers},
    schemas::{Schemas, Server},
    text::{age, seconds_since},
};
use crate::{
    kafka::{Behind, Groups},
    output::{Output, print_json, print_text, row, table},
};
use futures_util::{TryStreamExt, stream::FuturesOrdered};
use serde::Serialize;
use sqlx::FromRow;
use stampede_db::Statement;
use stampede_vocab::{Service, Timestamp};
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

/// Count messages to be sent and to be read, parked keys and dead letters.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede messages lag
  stampede messages lag -o json | jq '.consumers[] | select(.dead_letters_waiting > 0)'

A consumer commits its offsets about once a second, so some messages that it has applied may still count as unread.")]
pub struct Args {
    /// Kafka's addresses, comma separated
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS", value_name = "HOST:PORT,...")]
    kafka_brokers: String,

    #[command(flatten)]
    server: Server,
}

/// The lag of all services.
#[derive(Debug, Serialize)]
struct Lag {
    outboxes: Vec<Outbox>,
    consumers: Vec<Consumer>,
}

/// The unsent messages of a service.
#[derive(Debug, Serialize)]
struct Outbox {
    #[serde(serialize_with = "by_name")]
    service: Service,
    topic: String,
    unsent_messages: i64,
    oldest_unsent_age_s: Option<f64>,
}

/// The messages of one topic that a service has not read or not applied.
#[derive(Debug, Serialize)]
struct Consumer {
    #[serde(serialize_with = "by_name")]
    consumer: Service,
    topic: String,
    /// Unread records, of types that it skips too; none for a topic that it does not read under this prefix.
    lag_messages: Option<i64>,
    /// Age of the oldest of them; none if there are none, or if Kafka has not shown it in time.
    lag_s: Option<f64>,
    #[serde(flatten)]
    set_aside: SetAside,
}

/// The dead letters of a service of one topic.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
struct SetAside {
    parked_keys: i64,
    /// Nobody has decided on them.
    dead_letters_waiting: i64,
    dead_letters_to_replay: i64,
    /// Of both.
    oldest_dead_letter_age_s: Option<f64>,
}

#[derive(Debug, FromRow)]
struct UnsentRow {
    messages: i64,
    oldest_us: Option<i64>,
}

#[derive(Debug, FromRow)]
struct LettersRow {
    topic: String,
    state: String,
    letters: i64,
    oldest_us: i64,
}

#[derive(Debug, FromRow)]
struct ParkedRow {
    topic: String,
    parked: i64,
}

/// Prints the lag.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let prefix = &args.server.kafka_topic_prefix;
    let schemas = Schemas::new(&args.server);
    let groups = Groups::connect(&args.kafka_brokers, prefix).await?;
    let lag = Lag {
        outboxes: outboxes(&schemas, prefix).await?,
        consumers: all_consumers(&schemas, unread(&groups).await?, prefix).await?,
    };
    if output.json { print_json(&lag) } else { print_text(&lag) }
}

async fn outboxes(schemas: &Schemas, prefix: &str) -> anyhow::Result<Vec<Outbox>> {
    let mut outboxes = Vec::new();
    for service in Service::ALL {
        // Only rows above the lowest floor are read.
        let query = Statement::new(
            "SELECT COUNT(*) AS messages, MIN(o.created_us) AS oldest_us FROM outbox o JOIN outbox_leases l \
             ON l.partition_no = o.partition_no WHERE o.id > (SELECT COALESCE(MIN(COALESCE(floor_id, 0)), 0) \
             FROM outbox_leases) AND o.id > COALESCE(l.floor_id, 0)",
        );
        let rows: Vec<UnsentRow> = schemas.read(service, "the outbox", query).await?;
        let (unsent_messages, oldest_us) = rows.first().map_or((0, None), |row| (row.messages, row.oldest_us));
        let oldest_unsent_age_s = oldest_us.map(|oldest_us| seconds_since(oldest_us, Timestamp::now()));
        outboxes.push(Outbox { service, topic: service.topic(prefix), unsent_messages, oldest_unsent_age_s });
    }
    Ok(outboxes)
}

/// Unread records of each consumer and writer, and the age of the oldest.
type Unread = BTreeMap<(Service, Service), (i64, Option<f64>)>;

async fn unread(groups: &Groups) -> anyhow::Result<Unread> {
    let behind = groups.behind().await?;
    let with_age = |behind: Behind| async move {
        let oldest = groups.oldest(&behind).await?;
        let age_s = oldest.map(|oldest| seconds_since(oldest.micros(), Timestamp::now()));
        anyhow::Ok(((behind.reader, behind.writer), (behind.records, age_s)))
    };
    // All at once: each waits for Kafka, and there are no more than readers of topics.
    behind.into_iter().map(with_age).collect::<FuturesOrdered<_>>().try_collect().await
}

async fn all_consumers(schemas: &Schemas, unread: Unread, prefix: &str) -> anyhow::Result<Vec<Consumer>> {
    let mut all = Vec::new();
    for consumer in consumers() {
        let mut set_aside = set_aside(schemas, consumer).await?;
        for writer in consumer.reads() {
            let topic = writer.topic(prefix);
            let (lag_messages, lag_s) = unread.get(&(consumer, writer)).copied().unwrap_or_default();
            let set_aside = set_aside.remove(&topic).unwrap_or_default();
            all.push(Consumer { consumer, topic, lag_messages: Some(lag_messages), lag_s, set_aside });
        }
        // Topics that it has read under another prefix.
        let others = set_aside.into_iter();
        all.extend(others.map(|(topic, set_aside)| Consumer {
            consumer,
            topic,
            lag_messages: None,
            lag_s: None,
            set_aside,
        }));
    }
    Ok(all)
}

/// Returns the dead letters of a service, by topic.
async fn set_aside(schemas: &Schemas, consumer: Service) -> anyhow::Result<BTreeMap<String, SetAside>> {
    let letters = Statement::new(
        "SELECT topic, state, COUNT(*) AS letters, MIN(set_aside_us) AS oldest_us FROM dead_letters \
         WHERE state IN ('WAITING', 'REPLAY') GROUP BY topic, state",
    );
    let parked = Statement::new("SELECT topic, COUNT(*) AS parked FROM inbox_parked GROUP BY topic");
    let letters: Vec<LettersRow> = schemas.read(consumer, "dead letters", letters).await?;
    let parked: Vec<ParkedRow> = schemas.read(consumer, "parked keys", parked).await?;
    Ok(by_topic(letters, parked, Timestamp::now()))
}

fn by_topic(letters: Vec<LettersRow>, parked: Vec<ParkedRow>, now: Timestamp) -> BTreeMap<String, SetAside> {
    let mut topics: BTreeMap<String, SetAside> = BTreeMap::new();
    for LettersRow { topic, state, letters, oldest_us } in letters {
        let set_aside = topics.entry(topic).or_default();
        if state == "REPLAY" {
            set_aside.dead_letters_to_replay += letters;
        } else {
            set_aside.dead_letters_waiting += letters;
        }
        let age_s = seconds_since(oldest_us, now);
        let oldest_s = set_aside.oldest_dead_letter_age_s.unwrap_or(0.0).max(age_s);
        set_aside.oldest_dead_letter_age_s = Some(oldest_s);
    }
    for ParkedRow { topic, parked } in parked {
        topics.entry(topic).or_default().parked_keys = parked;
    }
    topics
}

impl Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unsent = table(["service", "topic"], ["unsent", "oldest"]);
        for outbox in &self.outboxes {
            let figures = [outbox.unsent_messages.to_string(), age_or_none(outbox.oldest_unsent_age_s)];
            unsent.add_row(row([outbox.service.name(), &outbox.topic], figures));
        }
        let figures = ["unread", "oldest", "parked keys", "dead letters", "to replay", "oldest letter"];
        let mut waiting = table(["consumer", "topic"], figures);
        for Consumer { consumer, topic, lag_messages, lag_s, set_aside } in &self.consumers {
            let figures = [
                lag_messages.map_or_else(|| "-".to_owned(), |messages| messages.to_string()),
                age_or_none(*lag_s),
                set_aside.parked_keys.to_string(),
                set_aside.dead_letters_waiting.to_string(),
                set_aside.dead_letters_to_replay.to_string(),
                age_or_none(set_aside.oldest_dead_letter_age_s),
            ];
            waiting.add_row(row([consumer.name(), topic], figures));
        }
        write!(f, "{unsent}\n\n{waiting}")
    }
}

fn age_or_none(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_counted_by_topic() {
        let row = |topic: &str, state: &str, letters, oldest_us| LettersRow {
            topic: topic.to_owned(),
            state: state.to_owned(),
            letters,
            oldest_us,
        };
        let letters = vec![row("t.order", "REPLAY", 2, 4_000_000), row("t.order", "WAITING", 3, 6_000_000)];
        let parked = vec![ParkedRow { topic: "old.order".to_owned(), parked: 1 }];
        let topics = by_topic(letters, parked, Timestamp::from_micros(10_000_000));
        let order = SetAside {
            parked_keys: 0,
            dead_letters_waiting: 3,
            dead_letters_to_replay: 2,
            oldest_dead_letter_age_s: Some(6.0),
        };
        assert_eq!(topics["t.order"], order);
        assert_eq!(topics["old.order"], SetAside { parked_keys: 1, ..SetAside::default() });
    }

    #[test]
    fn people_get_a_table_of_outboxes_and_one_of_consumers() {
        let (service, topic) = (Service::Order, "t.order".to_owned());
        let outbox = Outbox { service, topic, unsent_messages: 5, oldest_unsent_age_s: Some(7.0) };
        let set_aside = SetAside { parked_keys: 2, ..SetAside::default() };
        let (consumer, topic) = (Service::Payment, "t.order".to_owned());
        let consumer = Consumer { consumer, topic, lag_messages: Some(11), lag_s: Some(180.0), set_aside };
        let text = Lag { outboxes: vec![outbox], consumers: vec![consumer] }.to_string();
        assert_eq!(text.lines().count(), 7, "{text}");
        for part in ["order", "t.order", "5", "7 s", "payment", "11", "3 min"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
