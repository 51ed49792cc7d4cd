//! The sale step by step: each transaction in which a service takes a message, writes one, does both, or takes units or
//! a coupon for an order that is not written yet; and the texts that identify it on its way to the database. A message
//! without a step fails a test here, and a transaction without a row one in `transactions.rs`.

use Way::{Cancelled, Claimed, Declined, Expired, Late, Refunded, Rejected, Scheduled};
use stampede_proto::messages;
use stampede_testkit::Service::{self, Coupon, Event, Inventory, Order, Payment};
use std::{collections::BTreeSet, fmt};

/// The path of an event, a coupon or an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// An event opens and closes, and another one is cancelled.
    Scheduled,
    Claimed,
    /// An order with a coupon is paid, and an operator refunds it.
    Refunded,
    /// An order is paid with the second card.
    Declined,
    /// An order with a coupon is cancelled.
    Cancelled,
    /// An order with a coupon is never paid.
    Expired,
    /// The money comes after the deadline, and there are units.
    Late,
    /// The money comes after the deadline, and the units are gone.
    Rejected,
}

impl Way {
    /// Those of orders.
    pub const OF_ORDERS: [Self; 6] = [Refunded, Declined, Cancelled, Expired, Late, Rejected];

    pub fn has_coupon(self) -> bool {
        matches!(self, Refunded | Cancelled | Expired)
    }
}

/// One transaction.
#[derive(Debug)]
pub struct Step {
    pub service: Service,
    takes: Option<&'static str>,
    writes: Option<&'static str>,
    pub way: Way,
    /// Texts that only its writes have, from the way's beginning on, and one of them has all. In braces are the ids of
    /// the order that goes this way: as text, or as the hexadecimal digits that SQL has.
    pub marks: &'static [&'static str],
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, takes, writes, way, marks } = self;
        let (takes, writes) = (takes.unwrap_or("nothing"), writes.unwrap_or("nothing"));
        write!(f, "{service} takes {takes} and writes {writes} ({way:?}, {marks:?})")
    }
}

const fn writes(service: Service, message: &'static str, way: Way, marks: &'static [&'static str]) -> Step {
    Step { service, takes: None, writes: Some(message), way, marks }
}

const fn takes(service: Service, message: &'static str, way: Way, marks: &'static [&'static str]) -> Step {
    Step { service, takes: Some(message), writes: None, way, marks }
}

/// Called by another service, without a message.
const fn called(service: Service, way: Way, marks: &'static [&'static str]) -> Step {
    Step { service, takes: None, writes: None, way, marks }
}

/// Takes the first message, and writes the second one.
const fn answers(
    service: Service,
    (taken, written): (&'static str, &'static str),
    way: Way,
    marks: &'static [&'static str],
) -> Step {
    Step { service, takes: Some(taken), writes: Some(written), way, marks }
}

#[rustfmt::skip]
pub const STEPS: &[Step] = &[
    writes(Event, "EventScheduled", Scheduled, &["EventScheduled"]),
    writes(Event, "EventOpened", Scheduled, &["EventOpened"]),
    writes(Event, "EventClosed", Scheduled, &["EventClosed"]),
    writes(Event, "EventCancelled", Scheduled, &["EventCancelled"]),
    takes(Inventory, "EventScheduled", Scheduled, &["INSERT INTO stock "]),
    takes(Inventory, "EventCancelled", Scheduled, &[" SET s.closes_at_us = LEAST("]),
    takes(Order, "EventCancelled", Scheduled, &["INSERT INTO cancelled_events "]),

    writes(Coupon, "CouponsIssued", Claimed, &["CouponsIssued"]),

    called(Inventory, Refunded, &["INSERT INTO ledger ", "{order_hex}"]),
    called(Coupon, Refunded, &["'HELD'", "{coupon_hex}"]),
    writes(Order, "OrderPlaced", Refunded, &["OrderPlaced", "{order}"]),
    writes(Order, "PaymentRequested", Refunded, &["PaymentRequested", "{order}"]),
    takes(Payment, "PaymentRequested", Refunded, &["INSERT INTO attempts ", "{payment_hex}"]),
    writes(Payment, "PaymentApproved", Refunded, &["PaymentApproved", "{payment}"]),
    answers(Order, ("PaymentApproved", "OrderFulfilled"), Refunded, &["OrderFulfilled", "{order}"]),
    takes(Coupon, "OrderFulfilled", Refunded, &["'USED'", "{coupon_hex}"]),
    writes(Order, "RefundRequested", Refunded, &["RefundRequested", "{order}"]),
    takes(Payment, "RefundRequested", Refunded, &["INSERT INTO refunds ", "{payment_hex}"]),
    writes(Payment, "PaymentRefunded", Refunded, &["PaymentRefunded", "{payment}"]),
    answers(Order, ("PaymentRefunded", "OrderRefunded"), Refunded, &["OrderRefunded", "{order}"]),
    takes(Coupon, "OrderRefunded", Refunded, &["'ISSUED'", "{coupon_hex}"]),
    takes(Inventory, "OrderRefunded", Refunded, &["'RELEASED'", "{order_hex}"]),

    writes(Payment, "PaymentDeclined", Declined, &["PaymentDeclined", "{payment}"]),
    takes(Order, "PaymentDeclined", Declined, &["'card_declined'", "{order_hex}"]),

    writes(Order, "OrderCancelled", Cancelled, &["OrderCancelled", "{order}"]),
    takes(Coupon, "OrderCancelled", Cancelled, &["'ISSUED'", "{coupon_hex}"]),
    takes(Inventory, "OrderCancelled", Cancelled, &["'RELEASED'", "{order_hex}"]),
    // It never was paid, so nothing else of this service is about it.
    takes(Payment, "OrderCancelled", Cancelled, &["{payment_hex}"]),

    writes(Order, "OrderExpired", Expired, &["OrderExpired", "{order}"]),
    takes(Coupon, "OrderExpired", Expired, &["'ISSUED'", "{coupon_hex}"]),
    takes(Inventory, "OrderExpired", Expired, &["'RELEASED'", "{order_hex}"]),
    takes(Payment, "OrderExpired", Expired, &["{payment_hex}"]),

    answers(Order, ("PaymentApproved", "OrderPaidLate"), Late, &["OrderPaidLate", "{order}"]),
    answers(Inventory, ("OrderPaidLate", "StockCommitted"), Late, &["StockCommitted", "{order}"]),
    answers(Order, ("StockCommitted", "OrderFulfilled"), Late, &["OrderFulfilled", "{order}"]),

    // Of the last unit, which nobody else may get meanwhile.
    called(Inventory, Rejected, &["INSERT INTO ledger ", "{order_hex}"]),
    answers(Inventory, ("OrderPaidLate", "StockRejected"), Rejected, &["StockRejected", "{order}"]),
    answers(Order, ("StockRejected", "RefundRequested"), Rejected, &["RefundRequested", "{order}"]),
];

/// Messages of the contract that are parts of others.
const PARTS: [&str; 3] = ["CouponIssued", "OrderedLine", "ScheduledItem"];

#[test]
fn every_message_that_a_service_takes_is_a_step() {
    let steps: BTreeSet<_> = STEPS.iter().filter_map(|step| Some((step.service, step.takes?))).collect();
    let taken: BTreeSet<_> = Service::ALL
        .into_iter()
        .flat_map(|reader| reader.reads().flat_map(move |writer| reader.takes(writer)).map(move |name| (reader, *name)))
        .collect();
    assert_eq!(steps, taken);
}

#[test]
fn every_message_that_a_service_writes_is_a_step() {
    let steps: BTreeSet<_> = STEPS.iter().filter_map(|step| Some((step.service, step.writes?.to_owned()))).collect();
    let written: BTreeSet<_> = Service::ALL
        .into_iter()
        .flat_map(|writer| messages::written_by(writer).into_iter().map(move |message| (writer, message)))
        .map(|(writer, message)| (writer, messages::name(&message).unwrap().to_owned()))
        .filter(|(_, name)| !PARTS.contains(&name.as_str()))
        .collect();
    assert_eq!(steps, written);
}
