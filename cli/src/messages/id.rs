//! Names of dead letters, unique over all services: `order-17` is row 17 of what the order service could not apply.

use serde::{Serialize, Serializer};
use stampede_vocab::Service;
use std::{fmt, str::FromStr};

/// The name of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The service that could not apply it.
    pub consumer: Service,
    pub row: i64,
}

/// Returns the services that apply messages, in the order of [`Service::ALL`].
pub fn consumers() -> impl Iterator<Item = Service> {
    Service::ALL.into_iter().filter(|service| service.reads().next().is_some())
}

/// Serializes a service as its name.
pub fn by_name<S: Serializer>(service: &Service, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(service.name())
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.consumer, self.row)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('-').and_then(|(name, row)| {
            let consumer = consumers().find(|consumer| consumer.name() == name)?;
            Some(Self { consumer, row: row.parse::<i64>().ok().filter(|row| *row > 0)? })
        });
        parsed.ok_or_else(|| {
            let names: Vec<_> = consumers().map(Service::name).collect();
            format!("expected an id as `messages list` prints it, such as order-17, of {}", names.join(", "))
        })
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back() {
        for consumer in consumers() {
            let id = LetterId { consumer, row: 17 };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(serde_json::to_value(LetterId { consumer: Service::Order, row: 3 }).unwrap(), "order-3");
    }

    #[test]
    fn what_is_no_id_is_refused_with_how_one_looks() {
        // The event service reads no topic.
        for text in ["", "17", "order", "order-", "order-x", "order-0", "order--1", "event-1", "orders-1"] {
            let refused = text.parse::<LetterId>().unwrap_err();
            assert!(refused.contains("such as order-17"), "{text}: {refused}");
        }
    }
}
