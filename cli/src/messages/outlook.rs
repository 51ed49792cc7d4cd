//! Consequences of discarding messages: the present state of the order, and the effects on its money and units.

use super::{
    plan::{Chain, Plan},
    schemas::Schemas,
    text::printable,
};
use prost::Name;
use serde::Serialize;
use stampede_db::Statement;
use stampede_proto::{message::v1 as proto, messages};
use stampede_vocab::{OrderId, PaymentId, Service};
use std::{
    collections::HashMap,
    fmt::{self, Display},
};

/// The consequences of discarding messages of a key.
#[derive(Debug, Serialize)]
pub struct Outlook {
    /// The order that they are about; none for those of an event.
    pub order: Option<OrderNow>,
    /// The consequences, once for each type of message.
    pub without: Vec<Without>,
}

/// An order as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OrderNow {
    pub order_id: OrderId,
    /// None if there is no such order.
    pub state: Option<String>,
    /// Units that the ledger has for it.
    pub committed_units: i64,
    pub payment: Option<PaymentNow>,
}

/// The payment of an order as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PaymentNow {
    pub state: String,
    pub currency: String,
    pub captured_minor: i64,
    pub refunded_minor: i64,
}

/// The consequence if a message never takes effect.
#[derive(Debug, PartialEq, Serialize)]
pub struct Without {
    /// Its name; empty for a record that is no message.
    pub message: String,
    pub then: &'static str,
}

/// The consequence for the reader if a message never takes effect there.
const CONSEQUENCES: &[(Service, &str, &str)] = &[
    (
        Service::Payment,
        proto::PaymentRequested::NAME,
        "the attempt is not charged; an order that is PAYING expires at its deadline, and gives back units and coupon",
    ),
    (
        Service::Payment,
        proto::RefundRequested::NAME,
        "an order that is REFUNDING asks for its refund again by itself, so that the money goes back all the same",
    ),
    (
        Service::Payment,
        proto::OrderExpired::NAME,
        "a charge that is queued may still be made; its money then buys the units again or goes back by itself",
    ),
    (
        Service::Payment,
        proto::OrderCancelled::NAME,
        "a charge that is queued may still be made; its money then goes back by itself",
    ),
    (
        Service::Order,
        proto::PaymentApproved::NAME,
        "an order that is PAYING expires at its deadline; payment then says again that it has the money, and the order \
         takes its units again or gives the money back. Of an order that had ended before, payment says so ten minutes \
         after the end, and three times later",
    ),
    (
        Service::Order,
        proto::PaymentDeclined::NAME,
        "an order that is PAYING cannot be paid again; it expires at its deadline, and gives back units and coupon",
    ),
    (
        Service::Order,
        proto::PaymentRefunded::NAME,
        "the money is back; an order that is REFUNDING asks again by itself, and is then answered again. One that is \
         FULFILLED, as after a refund by hand, stays so: refund it",
    ),
    (
        Service::Order,
        proto::StockCommitted::NAME,
        "an order that is PAID asks again by itself, and is then answered again and fulfilled",
    ),
    (
        Service::Order,
        proto::StockRejected::NAME,
        "an order that is PAID asks again by itself, and is then answered again: it gets its units or its money back",
    ),
    (
        Service::Order,
        proto::EventCancelled::NAME,
        "the orders of the event go on: unpaid ones may be paid until their deadline, and paid ones are not refunded; \
         replay it",
    ),
    (
        Service::Inventory,
        proto::EventScheduled::NAME,
        "the stock keeps its items and times until the event is rescheduled; `stampede audit` names the difference",
    ),
    (
        Service::Inventory,
        proto::EventCancelled::NAME,
        "the stock goes on being sold until its closing time, unless CancelEvent was answered: StageStock can end that; \
         `stampede audit` names it",
    ),
    (Service::Inventory, proto::OrderPaidLate::NAME, "an order that is PAID asks for its units again by itself"),
    (Service::Inventory, proto::OrderCancelled::NAME, UNITS_STAY),
    (Service::Inventory, proto::OrderExpired::NAME, UNITS_STAY),
    (Service::Inventory, proto::OrderRefunded::NAME, UNITS_STAY),
    (Service::Coupon, proto::OrderFulfilled::NAME, COUPON_IS_SETTLED),
    (Service::Coupon, proto::OrderCancelled::NAME, COUPON_IS_SETTLED),
    (Service::Coupon, proto::OrderExpired::NAME, COUPON_IS_SETTLED),
    (
        Service::Coupon,
        proto::OrderRefunded::NAME,
        "a coupon that was used stays used, and the buyer does not get it back; `stampede audit` names it",
    ),
];

const UNITS_STAY: &str = "the units and gifts of the order stay taken for some minutes, until inventory finds that the \
     order has ended and gives them back";
const COUPON_IS_SETTLED: &str =
    "a coupon that is held for the order is settled all the same, by the sweep of old holds";
const UNKNOWN: &str = "nothing is known of such a message: `stampede audit` says whether all is well without it";
const NO_MESSAGE: &str = "it is no message of ours: nothing is missing, unless its sender meant it as one";

/// Reads the state of the orders of the plan, key by key.
pub async fn read(schemas: &Schemas, plan: &Plan) -> anyhow::Result<Vec<Outlook>> {
    let ids = order_ids(schemas, plan).await?;
    let mut distinct: Vec<OrderId> = ids.values().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let orders = orders(schemas, &distinct).await?;
    let outlook = |chain: &Chain| Outlook {
        order: ids.get(&chain.key.key).and_then(|id| orders.get(id)).cloned(),
        without: without(chain),
    };
    Ok(plan.chains.iter().map(outlook).collect())
}

/// Returns the orders of the keys. A payment knows its order, and the key of anything else is no order.
async fn order_ids(schemas: &Schemas, plan: &Plan) -> anyhow::Result<HashMap<String, OrderId>> {
    let keys = || plan.chains.iter().map(|chain| &chain.key.key);
    let mut ids: HashMap<String, OrderId> = keys().filter_map(|key| Some((key.clone(), key.parse().ok()?))).collect();
    let payments: Vec<PaymentId> = keys().filter_map(|key| key.parse().ok()).collect();
    if payments.is_empty() {
        return Ok(ids);
    }
    let mut query = Statement::new("SELECT id, order_id FROM payments WHERE id IN ");
    query.push_list(payments.iter().map(PaymentId::as_bytes));
    let rows: Vec<(Vec<u8>, Vec<u8>)> = schemas.read(Service::Payment, "payments", query).await?;
    for (payment, order) in rows {
        ids.insert(PaymentId::try_from_bytes(&payment)?.to_string(), OrderId::try_from_bytes(&order)?);
    }
    Ok(ids)
}

async fn orders(schemas: &Schemas, ids: &[OrderId]) -> anyhow::Result<HashMap<OrderId, OrderNow>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let nothing = |id: &OrderId| (*id, OrderNow { order_id: *id, state: None, committed_units: 0, payment: None });
    let mut orders: HashMap<OrderId, OrderNow> = ids.iter().map(nothing).collect();
    let bytes = || ids.iter().map(OrderId::as_bytes);

    let mut query = Statement::new("SELECT id, state FROM orders WHERE id IN ");
    query.push_list(bytes());
    let states: Vec<(Vec<u8>, String)> = schemas.read(Service::Order, "orders", query).await?;
    for (id, state) in states {
        known(&mut orders, &id, |order| order.state = Some(state))?;
    }
    let mut query = Statement::new(
        "SELECT order_id, CAST(SUM(units) AS SIGNED) FROM ledger WHERE state = 'COMMITTED' AND order_id IN ",
    );
    query.push_list(bytes()).push(" GROUP BY order_id");
    let units: Vec<(Vec<u8>, i64)> = schemas.read(Service::Inventory, "the ledger", query).await?;
    for (id, units) in units {
        known(&mut orders, &id, |order| order.committed_units = units)?;
    }
    let mut query = Statement::new(
        "SELECT order_id, state, currency, captured_minor, refunded_minor FROM payments WHERE order_id IN ",
    );
    query.push_list(bytes());
    let payments: Vec<(Vec<u8>, String, String, i64, i64)> = schemas.read(Service::Payment, "payments", query).await?;
    for (id, state, currency, captured_minor, refunded_minor) in payments {
        let payment = PaymentNow { state, currency, captured_minor, refunded_minor };
        known(&mut orders, &id, |order| order.payment = Some(payment))?;
    }
    Ok(orders)
}

fn known(orders: &mut HashMap<OrderId, OrderNow>, id: &[u8], note: impl FnOnce(&mut OrderNow)) -> anyhow::Result<()> {
    if let Some(order) = orders.get_mut(&OrderId::try_from_bytes(id)?) {
        note(order);
    }
    Ok(())
}

fn without(chain: &Chain) -> Vec<Without> {
    let mut all: Vec<Without> = Vec::new();
    for letter in &chain.letters {
        let message = messages::name(&letter.message_type).unwrap_or(&letter.message_type);
        let then = if letter.is_message() { consequence(chain.key.consumer, message) } else { NO_MESSAGE };
        let one = Without { message: message.to_owned(), then };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

fn consequence(reader: Service, message: &str) -> &'static str {
    let known = CONSEQUENCES.iter().find(|(by, name, _)| *by == reader && *name == message);
    known.map_or(UNKNOWN, |(_, _, then)| *then)
}

impl Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(order) = &self.order {
            writeln!(f, "{order}")?;
        }
        for (index, Without { message, then }) in self.without.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            let name = if message.is_empty() { "a record that is no message" } else { message.as_str() };
            write!(f, "{newline}without {}: {then}", printable(name, 128))?;
        }
        Ok(())
    }
}

impl Display for OrderNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            Some(state) => write!(f, "order {} is {state}, {} units are taken", self.order_id, self.committed_units)?,
            None => write!(f, "there is no order {}, {} units are taken", self.order_id, self.committed_units)?,
        }
        match &self.payment {
            Some(payment) => write!(f, ", {payment}"),
            None => write!(f, ", nothing was ever charged"),
        }
    }
}

impl Display for PaymentNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, currency, captured_minor, refunded_minor } = self;
        write!(
            f,
            "its payment is {state}: captured {captured_minor}, refunded {refunded_minor} in {currency}, minor units"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{letter::tests::letter, plan::Key};

    #[test]
    fn it_is_said_of_every_message_what_follows_without_it() {
        let mut all = Vec::new();
        for reader in Service::ALL {
            for writer in reader.reads() {
                all.extend(reader.takes(writer).iter().map(|name| (reader, *name)));
            }
        }
        let missing: Vec<_> = all.iter().filter(|(reader, name)| consequence(*reader, name) == UNKNOWN).collect();
        assert!(missing.is_empty(), "say in CONSEQUENCES what follows without {missing:?}");
        assert_eq!(CONSEQUENCES.len(), all.len(), "there are others than are taken");
    }

    #[test]
    fn each_type_is_explained_once() {
        let letters: Vec<_> = ["PaymentRequested", "OrderExpired", "PaymentRequested"]
            .iter()
            .zip(1..)
            .map(|(name, row)| letter(row, name, "ord_1"))
            .collect();
        let chain = Chain { key: Key::of(&letters[0]), letters };
        let names: Vec<_> = without(&chain).into_iter().map(|without| without.message).collect();
        assert_eq!(names, ["PaymentRequested", "OrderExpired"]);
    }

    #[test]
    fn an_order_is_shown_with_its_money_and_units() {
        let order_id: OrderId = "ord_0000000000000000000000001a".parse().unwrap();
        let payment = PaymentNow {
            state: "CAPTURED".to_owned(),
            currency: "EUR".to_owned(),
            captured_minor: 1_999,
            refunded_minor: 0,
        };
        let order = OrderNow { order_id, state: Some("PAYING".to_owned()), committed_units: 2, payment: Some(payment) };
        let without = vec![Without { message: "PaymentApproved".to_owned(), then: UNKNOWN }];
        let text = Outlook { order: Some(order), without }.to_string();
        assert!(text.starts_with("order ord_0000000000000000000000001a is PAYING, 2 units are taken"), "{text}");
        assert!(
            text.contains("captured 1999, refunded 0 in EUR, minor") && text.contains("\nwithout PaymentApproved:"),
            "{text}"
        );
    }
}
