//! The topics, who writes them, and who reads them: one place for the services, the tools and the documentation.

use std::fmt;

/// What one service tells the others. The topic is `<prefix>.<service>`, by default `stampede.order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What happens to events.
    Event,
    /// What happens to coupons.
    Coupon,
    /// What the ledger has decided.
    Inventory,
    /// What happens to orders, and what they ask for.
    Order,
    /// How payments ended.
    Payment,
}

/// A service that reads a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The service.
    pub service: &'static str,
    /// The messages that mean something to it, without their package. It passes over all others.
    messages: &'static [&'static str],
}

/// The package of all messages.
const PACKAGE: &str = "stampede.message.v1";

impl Reader {
    /// What this service reads, topic by topic.
    pub fn all_of(service: &str) -> impl Iterator<Item = (Topic, Self)> {
        let readers =
            Topic::ALL.into_iter().flat_map(|topic| topic.readers().iter().map(move |reader| (topic, *reader)));
        readers.filter(move |(_, reader)| reader.service == service)
    }

    /// The full names of the messages that it takes, such as `stampede.message.v1.OrderPlaced`.
    pub fn message_types(self) -> impl Iterator<Item = String> {
        self.messages.iter().map(|message| format!("{PACKAGE}.{message}"))
    }
}

const ORDER_READERS: &[Reader] = &[
    Reader {
        service: "coupon",
        messages: &["OrderFulfilled", "OrderRejected", "OrderCancelled", "OrderExpired", "OrderRefunded"],
    },
    Reader {
        service: "inventory",
        messages: &["OrderPlaced", "OrderPaidLate", "OrderRejected", "OrderCancelled", "OrderExpired", "OrderRefunded"],
    },
    Reader { service: "payment", messages: &["PaymentRequested", "RefundRequested", "OrderExpired", "OrderCancelled"] },
];

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 5] = [Self::Event, Self::Coupon, Self::Inventory, Self::Order, Self::Payment];

    /// The service that writes it.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Coupon => "coupon",
            Self::Inventory => "inventory",
            Self::Order => "order",
            Self::Payment => "payment",
        }
    }

    /// The services that read it, each as one consumer group.
    pub const fn readers(self) -> &'static [Reader] {
        match self {
            Self::Event => &[Reader { service: "inventory", messages: &["EventScheduled", "EventCancelled"] }],
            Self::Coupon => &[],
            Self::Inventory => &[Reader { service: "order", messages: &["StockCommitted", "StockRejected"] }],
            Self::Order => ORDER_READERS,
            Self::Payment => {
                &[Reader { service: "order", messages: &["PaymentApproved", "PaymentDeclined", "PaymentRefunded"] }]
            }
        }
    }

    /// Name of the topic under this prefix.
    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}.{}", self.service())
    }

    /// Where a message of the topic goes that this consumer cannot apply.
    pub fn dead_letters(self, prefix: &str, consumer: &str) -> String {
        format!("{}.{consumer}.dlq", self.name(prefix))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_prefix() {
        assert_eq!(Topic::Order.name("stampede"), "stampede.order");
        assert_eq!(Topic::Order.dead_letters("t1", "coupon"), "t1.order.coupon.dlq");
    }
}
