//! The messages on the topics: their names, and which service takes which.

use crate::message::v1::{
    EventCancelled, EventScheduled, OrderCancelled, OrderExpired, OrderFulfilled, OrderPaidLate, OrderPlaced,
    OrderRefunded, OrderRejected, PaymentApproved, PaymentDeclined, PaymentRefunded, PaymentRequested, RefundRequested,
    StockCommitted, StockRejected,
};
use prost::{Message, Name};
use stampede_vocab::Service;

/// The package of every message.
pub const PACKAGE: &str = OrderPlaced::PACKAGE;

/// Returns the full name and the bytes of a message, as an outbox takes them.
pub fn encode<M: Message + Name>(message: &M) -> (String, Vec<u8>) {
    (M::full_name(), message.encode_to_vec())
}

/// Returns the name within its package of a message with this full name; `None` for one of another package.
pub fn name(message_type: &str) -> Option<&str> {
    message_type.strip_prefix(PACKAGE)?.strip_prefix('.')
}

/// Returns the full names of the messages that `reader` takes from the topic of `writer`. It skips all others.
pub fn taken(reader: Service, writer: Service) -> Vec<String> {
    let names: &[&str] = match (reader, writer) {
        (Service::Coupon, Service::Order) => {
            &[OrderFulfilled::NAME, OrderRejected::NAME, OrderCancelled::NAME, OrderExpired::NAME, OrderRefunded::NAME]
        }
        (Service::Inventory, Service::Event) => &[EventScheduled::NAME, EventCancelled::NAME],
        (Service::Inventory, Service::Order) => &[
            OrderPlaced::NAME,
            OrderPaidLate::NAME,
            OrderRejected::NAME,
            OrderCancelled::NAME,
            OrderExpired::NAME,
            OrderRefunded::NAME,
        ],
        (Service::Order, Service::Inventory) => &[StockCommitted::NAME, StockRejected::NAME],
        (Service::Order, Service::Payment) => &[PaymentApproved::NAME, PaymentDeclined::NAME, PaymentRefunded::NAME],
        (Service::Payment, Service::Order) => {
            &[PaymentRequested::NAME, RefundRequested::NAME, OrderExpired::NAME, OrderCancelled::NAME]
        }
        _ => &[],
    };
    names.iter().map(|name| format!("{PACKAGE}.{name}")).collect()
}

/// Returns the full names of all messages that `reader` takes.
pub fn taken_by(reader: Service) -> impl Iterator<Item = String> {
    reader.reads().iter().flat_map(move |writer| taken(reader, *writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_topic_takes_something_from_it_and_nobody_else_does() {
        for reader in Service::ALL {
            for writer in Service::ALL {
                let reads = reader.reads().contains(&writer);
                assert_eq!(!taken(reader, writer).is_empty(), reads, "{reader} from {writer}");
            }
        }
    }

    #[test]
    fn a_message_is_known_by_its_name_within_the_package() {
        let (message_type, _) = encode(&OrderExpired::default());
        assert_eq!(message_type, "stampede.message.v1.OrderExpired");
        assert_eq!(name(&message_type), Some(OrderExpired::NAME));
        assert_eq!(name("stampede.order.v1.Order"), None);
    }
}
