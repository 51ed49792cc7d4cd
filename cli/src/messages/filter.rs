//! The filter of dead letters.

use super::{
    id::{LetterId, consumers},
    text::parse_age,
};
use anyhow::bail;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use stampede_db::Statement;
use stampede_proto::messages;
use stampede_vocab::{Service, Timestamp};
use std::time::Duration;

/// Conditions on dead letters; all of these have to hold.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only of this topic: its name, or that of the service that writes to it
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Only what this service could not apply
    #[arg(long, value_name = "SERVICE", value_parser = consumer_parser())]
    consumer: Option<Service>,

    /// Only of this key: an order, a payment or an event
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: Option<String>,

    /// Only messages of this type, such as PaymentApproved
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    message_type: Option<String>,

    /// Only those that were set aside longer ago than this, such as 90s, 15m, 2h or 3d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
}

/// A filter with the stored names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    topic: Option<String>,
    consumer: Option<Service>,
    key: Option<String>,
    message_type: Option<String>,
    /// Dead letters written before this time.
    before_us: Option<i64>,
}

/// Reads the name of a service that applies messages.
fn consumer_parser() -> impl TypedValueParser<Value = Service> {
    PossibleValuesParser::new(consumers().map(Service::name))
        .map(|name| consumers().find(|consumer| consumer.name() == name).expect("it is one of the possible values"))
}

/// Parses the name of a message, full or within its package. Returns the full one.
fn parse_type(text: &str) -> Result<String, String> {
    let mut known = Service::ALL.into_iter().flat_map(messages::written_by);
    known.find(|full| full == text || messages::name(full) == Some(text)).ok_or_else(|| {
        let taken = consumers().flat_map(|reader| reader.reads().flat_map(move |writer| reader.takes(writer)));
        let mut taken: Vec<&str> = taken.copied().collect();
        taken.sort_unstable();
        taken.dedup();
        format!("no such message: expected one of {}", taken.join(", "))
    })
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        let Self { topic, consumer, key, message_type, older_than } = self;
        topic.is_none() && consumer.is_none() && key.is_none() && message_type.is_none() && older_than.is_none()
    }

    /// Resolves the names under this prefix of topics. Fails if no service reads the topic.
    pub fn resolve(&self, topic_prefix: &str, now: Timestamp) -> anyhow::Result<Wanted> {
        let topic = self.topic.as_deref().map(|text| topic_name(text, topic_prefix)).transpose()?;
        Ok(Wanted {
            topic,
            consumer: self.consumer,
            key: self.key.clone(),
            message_type: self.message_type.clone(),
            before_us: self.older_than.map(|age| now.minus(age).micros()),
        })
    }
}

fn topic_name(text: &str, prefix: &str) -> anyhow::Result<String> {
    let writers: Vec<Service> = Service::ALL.into_iter().filter(|writer| writer.readers().next().is_some()).collect();
    let named = writers.iter().find(|writer| writer.name() == text || writer.topic(prefix) == text);
    let Some(writer) = named else {
        let known: Vec<_> = writers.iter().map(|writer| writer.topic(prefix)).collect();
        bail!(
            "--topic: no service reads {text:?}: expected one of {}, or check --kafka-topic-prefix",
            known.join(", ")
        );
    };
    Ok(writer.topic(prefix))
}

impl Wanted {
    /// Returns the consumers whose letters it may select, in the order of [`Service::ALL`].
    pub fn consumers(&self) -> impl Iterator<Item = Service> {
        let only = self.consumer;
        consumers().filter(move |consumer| only.is_none_or(|only| only == *consumer))
    }

    /// Appends its conditions, each after an AND.
    pub fn push(&self, query: &mut Statement) {
        let texts = [
            (" AND topic = ", &self.topic),
            (" AND message_key = ", &self.key),
            (" AND message_type = ", &self.message_type),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                query.push(condition).push_bind(value);
            }
        }
        if let Some(before_us) = self.before_us {
            query.push(" AND set_aside_us < ").push_bind(before_us);
        }
    }
}

/// The dead letters of a decision: one, or those that a filter selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    One(LetterId),
    All(Wanted),
}

impl Target {
    /// Takes an id or a filter. Fails unless exactly one is given.
    pub fn of(id: Option<LetterId>, filter: &Filter, topic_prefix: &str) -> anyhow::Result<Self> {
        match id {
            Some(_) if !filter.is_empty() => {
                bail!("an ID and --topic, --consumer, --key, --type or --older-than exclude each other: leave out one")
            }
            Some(id) => Ok(Self::One(id)),
            None if filter.is_empty() => {
                bail!("say which: give an ID, or --key, --topic, --consumer, --type or --older-than")
            }
            None => Ok(Self::All(filter.resolve(topic_prefix, Timestamp::now())?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(100_000_000);

    fn on(topic: &str) -> Filter {
        Filter { topic: Some(topic.to_owned()), ..Filter::default() }
    }

    #[test]
    fn a_topic_is_known_by_its_name_and_by_its_writer() {
        for text in ["order", "t.order"] {
            assert_eq!(on(text).resolve("t", NOW).unwrap().topic.as_deref(), Some("t.order"));
        }
        let refused = on("orders").resolve("t", NOW).unwrap_err().to_string();
        assert!(refused.contains("--topic") && refused.contains("t.order"), "{refused}");
        assert!(on("coupon").resolve("t", NOW).is_err(), "nobody reads it");
    }

    #[test]
    fn a_type_is_known_by_its_short_name_too() {
        let full = "stampede.message.v1.PaymentApproved";
        for text in ["PaymentApproved", full] {
            assert_eq!(parse_type(text).as_deref(), Ok(full));
        }
        assert!(parse_type("PaymentAproved").unwrap_err().contains("PaymentApproved"));
    }

    #[test]
    fn no_condition_breaks_out_of_its_place() {
        let filter = Filter {
            topic: Some("order".to_owned()),
            consumer: Some(Service::Payment),
            key: Some("' OR 1 = 1".to_owned()),
            message_type: Some("x".to_owned()),
            older_than: Some(Duration::from_secs(10)),
        };
        let wanted = filter.resolve("t", NOW).unwrap();
        assert_eq!(wanted.before_us, Some(90_000_000));
        assert_eq!(wanted.consumers().collect::<Vec<_>>(), [Service::Payment]);
        let mut query = Statement::new("");
        wanted.push(&mut query);
        assert_eq!(
            query.sql(),
            " AND topic = 't.order' AND message_key = _utf8mb4 x'27204F522031203D2031' AND message_type = 'x' \
             AND set_aside_us < 90000000"
        );
        let mut all = Statement::new("");
        Wanted::default().push(&mut all);
        assert_eq!(all.sql(), "");
        assert_eq!(Wanted::default().consumers().count(), 4);
    }

    #[test]
    fn either_an_id_or_a_filter_says_which() {
        let id = LetterId { consumer: Service::Order, row: 1 };
        assert_eq!(Target::of(Some(id), &Filter::default(), "t").unwrap(), Target::One(id));
        assert!(Target::of(None, &on("order"), "t").is_ok());
        assert!(Target::of(Some(id), &on("order"), "t").unwrap_err().to_string().contains("exclude each other"));
        assert!(Target::of(None, &Filter::default(), "t").unwrap_err().to_string().contains("--key"));
    }
}
