//! The sale step by step: each transaction in which a service takes a message, writes one, does both, or takes units or
//! a coupon for an order that is not written yet; and the texts that identify it on its way to the database. A message
//! without a step fails a test here, and a transaction without a row one in `transactions.rs`.

use Stage::{Claim, End, Pay, Place, Refund};
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

/// A part of the sale, which all ways go through together. Within it one step leads to the next by itself, and at its
/// end nothing moves, so that it can be audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Coupons are claimed.
    Claim,
    /// Orders are placed, and an event is created.
    Place,
    /// Orders are cancelled and expire, and the event is cancelled.
    End,
    /// Orders are paid, in time and late, and another event opens.
    Pay,
    /// Orders are refunded, and paid with the second card; a third event closes.
    Refund,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Claim, Place, End, Pay, Refund];
}

/// One transaction.
#[derive(Debug)]
pub struct Step {
    pub service: Service,
    takes: Option<&'static str>,
    writes: Option<&'static str>,
    pub way: Way,
    pub stage: Stage,
    /// Texts that only its writes have in its stage, and one of them has all. In braces are the ids of the order that
    /// goes this way: as text, or as the hexadecimal digits that SQL has.
    pub marks: Marks,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, takes, writes, way, stage, .. } = self;
        let (takes, writes) = (takes.unwrap_or("nothing"), writes.unwrap_or("nothing"));
        write!(f, "{service} takes {takes} and writes {writes} ({way:?}, {stage:?})")
    }
}

/// See [`Step::marks`].
type Marks = &'static [&'static str];

const fn writes(service: Service, message: &'static str, way: Way, stage: Stage, marks: Marks) -> Step {
    Step { service, takes: None, writes: Some(message), way, stage, marks }
}

const fn takes(service: Service, message: &'static str, way: Way, stage: Stage, marks: Marks) -> Step {
    Step { service, takes: Some(message), writes: None, way, stage, marks }
}

/// Called by another service, without a message.
const fn called(service: Service, way: Way, stage: Stage, marks: Marks) -> Step {
    Step { service, takes: None, writes: None, way, stage, marks }
}

/// Takes the first message, and writes the second one.
const fn answers(
    service: Service,
    (taken, written): (&'static str, &'static str),
    way: Way,
    stage: Stage,
    marks: Marks,
) -> Step {
    Step { service, takes: Some(taken), writes: Some(written), way, stage, marks }
}

#[rustfmt::skip]
pub const STEPS: &[Step] = &[
    writes(Event, "EventScheduled", Scheduled, Place, &["EventScheduled"]),
    writes(Event, "EventOpened", Scheduled, Pay, &["EventOpened"]),
    writes(Event, "EventClosed", Scheduled, Refund, &["EventClosed"]),
    writes(Event, "EventCancelled", Scheduled, End, &["EventCancelled"]),
    takes(Inventory, "EventScheduled", Scheduled, Place, &["INSERT INTO stock "]),
    takes(Inventory, "EventCancelled", Scheduled, End, &[" SET s.closes_at_us = LEAST("]),
    takes(Order, "EventCancelled", Scheduled, End, &["INSERT INTO cancelled_events "]),

    writes(Coupon, "CouponsIssued", Claimed, Claim, &["CouponsIssued"]),

    called(Inventory, Refunded, Place, &["INSERT INTO ledger ", "{order_hex}"]),
    called(Coupon, Refunded, Place, &["'HELD'", "{coupon_hex}"]),
    writes(Order, "OrderPlaced", Refunded, Place, &["OrderPlaced", "{order}"]),
    writes(Order, "PaymentRequested", Refunded, Pay, &["PaymentRequested", "{order}"]),
    takes(Payment, "PaymentRequested", Refunded, Pay, &["INSERT INTO attempts ", "{payment_hex}"]),
    writes(Payment, "PaymentApproved", Refunded, Pay, &["PaymentApproved", "{payment}"]),
    answers(Order, ("PaymentApproved", "OrderFulfilled"), Refunded, Pay, &["OrderFulfilled", "{order}"]),
    takes(Coupon, "OrderFulfilled", Refunded, Pay, &["'USED'", "{coupon_hex}"]),
    writes(Order, "RefundRequested", Refunded, Refund, &["RefundRequested", "{order}"]),
    takes(Payment, "RefundRequested", Refunded, Refund, &["INSERT INTO refunds ", "{payment_hex}"]),
    writes(Payment, "PaymentRefunded", Refunded, Refund, &["PaymentRefunded", "{payment}"]),
    answers(Order, ("PaymentRefunded", "OrderRefunded"), Refunded, Refund, &["OrderRefunded", "{order}"]),
    takes(Coupon, "OrderRefunded", Refunded, Refund, &["'ISSUED'", "{coupon_hex}"]),
    takes(Inventory, "OrderRefunded", Refunded, Refund, &["'RELEASED'", "{order_hex}"]),

    writes(Payment, "PaymentDeclined", Declined, Pay, &["PaymentDeclined", "{payment}"]),
    takes(Order, "PaymentDeclined", Declined, Pay, &["'card_declined'", "{order_hex}"]),

    writes(Order, "OrderCancelled", Cancelled, End, &["OrderCancelled", "{order}"]),
    takes(Coupon, "OrderCancelled", Cancelled, End, &["'ISSUED'", "{coupon_hex}"]),
    takes(Inventory, "OrderCancelled", Cancelled, End, &["'RELEASED'", "{order_hex}"]),
    // It never was paid, so nothing else of this service is about it.
    takes(Payment, "OrderCancelled", Cancelled, End, &["{payment_hex}"]),

    writes(Order, "OrderExpired", Expired, End, &["OrderExpired", "{order}"]),
    takes(Coupon, "OrderExpired", Expired, End, &["'ISSUED'", "{coupon_hex}"]),
    takes(Inventory, "OrderExpired", Expired, End, &["'RELEASED'", "{order_hex}"]),
    takes(Payment, "OrderExpired", Expired, End, &["{payment_hex}"]),

    answers(Order, ("PaymentApproved", "OrderPaidLate"), Late, Pay, &["OrderPaidLate", "{order}"]),
    answers(Inventory, ("OrderPaidLate", "StockCommitted"), Late, Pay, &["StockCommitted", "{order}"]),
    answers(Order, ("StockCommitted", "OrderFulfilled"), Late, Pay, &["OrderFulfilled", "{order}"]),

    // Of the last unit, which nobody else may get meanwhile.
    called(Inventory, Rejected, Place, &["INSERT INTO ledger ", "{order_hex}"]),
    answers(Inventory, ("OrderPaidLate", "StockRejected"), Rejected, Pay, &["StockRejected", "{order}"]),
    answers(Order, ("StockRejected", "RefundRequested"), Rejected, Pay, &["RefundRequested", "{order}"]),
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
