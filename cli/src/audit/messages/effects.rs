//! Checks that every message that a service has read has taken effect, by the state of the service.

use super::{
    letters::Letters,
    meeting::named,
    rules::{MESSAGES, RULES, Rule},
};
use crate::{
    audit::{hex, named::Named, sources::Sources},
    kafka::Carried,
};
use prost::{Message, Name};
use serde::Serialize;
use sqlx::Row;
use stampede_proto::{
    convert::{stored_amount, time},
    message::v1 as proto,
    messages,
};
use stampede_vocab::{CouponId, EventId, ItemId, OrderId, PaymentId, Service, field};
use std::collections::HashMap;

/// The progress of a service in a topic, and messages without an effect there.
pub struct Reading {
    pub reader: Service,
    /// The committed offset of each partition.
    pub committed: HashMap<i32, i64>,
    pub letters: Letters,
    /// Number of messages that were compared with its state.
    pub effects: usize,
    pub without_effect: Named,
}

/// The fields of a message that a rule needs.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Facts {
    /// Index of the message in its batch.
    n: usize,
    /// Order or event.
    id: String,
    payment: String,
    coupon: String,
    item: String,
    number: i32,
    amount: i64,
    currency: String,
    version: i64,
    opens_us: i64,
    closes_us: i64,
}

impl Reading {
    /// Compares a batch of the topic of `writer` with the state of the reader. Leaves out messages that it has not read
    /// yet, and those that it has set aside.
    pub async fn compare(&mut self, sources: &Sources, writer: Service, batch: &[Carried]) -> anyhow::Result<()> {
        let takes = self.reader.takes(writer);
        let mut by_rule: HashMap<&str, Vec<Facts>> = HashMap::new();
        for (n, record) in batch.iter().enumerate() {
            let name = messages::name(&record.message_type);
            let Some(name) = takes.iter().copied().find(|taken| Some(*taken) == name) else { continue };
            let is_read = self.committed.get(&record.partition).is_some_and(|next| record.offset < *next);
            if !is_read || self.letters.has(record) {
                continue;
            }
            self.effects += 1;
            match facts(name, &record.payload) {
                Ok(facts) => {
                    by_rule.entry(name).or_default().extend(facts.into_iter().map(|facts| Facts { n, ..facts }));
                }
                Err(error) => self.without_effect.push(format!("{} ({error})", named(&record.key, &record.id))),
            }
        }
        for rule in RULES.iter().filter(|rule| rule.reader == self.reader) {
            let Some(facts) = by_rule.get(rule.message) else { continue };
            for n in broken(sources, rule, facts).await? {
                let Carried { key, id, .. } = &batch[n];
                self.without_effect.push(format!("{key} (message {id}, {})", rule.message));
            }
        }
        Ok(())
    }
}

/// Returns the indices of the messages that break the rule.
async fn broken(sources: &Sources, rule: &Rule, facts: &[Facts]) -> anyhow::Result<Vec<usize>> {
    let sql = rule.sql.replace("{messages}", MESSAGES);
    let rows = sources.rows_with(&sql, serde_json::to_string(facts)?).await?;
    rows.iter().map(|row| Ok(usize::try_from(row.try_get::<i64, _>(0)?)?)).collect()
}

/// Reads the fields of a message; one entry, or one for each item of an event.
fn facts(name: &str, payload: &[u8]) -> anyhow::Result<Vec<Facts>> {
    let one = match name {
        proto::PaymentRequested::NAME => {
            let requested = proto::PaymentRequested::decode(payload)?;
            let money = stored_amount("amount", requested.amount.as_ref())?;
            let (amount, currency) = (money.minor_units, money.currency.to_string());
            Facts { number: requested.attempt, amount, currency, ..of_order(&requested.order_id, "")? }
        }
        proto::RefundRequested::NAME => of_order(&proto::RefundRequested::decode(payload)?.order_id, "")?,
        proto::OrderPaidLate::NAME => of_order(&proto::OrderPaidLate::decode(payload)?.order_id, "")?,
        proto::OrderCancelled::NAME => {
            let cancelled = proto::OrderCancelled::decode(payload)?;
            of_order(&cancelled.order_id, &cancelled.coupon_id)?
        }
        proto::OrderExpired::NAME => {
            let expired = proto::OrderExpired::decode(payload)?;
            of_order(&expired.order_id, &expired.coupon_id)?
        }
        proto::OrderFulfilled::NAME => {
            let fulfilled = proto::OrderFulfilled::decode(payload)?;
            of_order(&fulfilled.order_id, &fulfilled.coupon_id)?
        }
        proto::OrderRefunded::NAME => {
            let refunded = proto::OrderRefunded::decode(payload)?;
            of_order(&refunded.order_id, &refunded.coupon_id)?
        }
        proto::PaymentApproved::NAME => of_order(&proto::PaymentApproved::decode(payload)?.order_id, "")?,
        proto::PaymentDeclined::NAME => {
            let declined = proto::PaymentDeclined::decode(payload)?;
            Facts { number: declined.attempt, ..of_order(&declined.order_id, "")? }
        }
        proto::PaymentRefunded::NAME => of_order(&proto::PaymentRefunded::decode(payload)?.order_id, "")?,
        proto::StockCommitted::NAME => of_order(&proto::StockCommitted::decode(payload)?.order_id, "")?,
        proto::StockRejected::NAME => of_order(&proto::StockRejected::decode(payload)?.order_id, "")?,
        proto::EventScheduled::NAME => return of_event(proto::EventScheduled::decode(payload)?),
        proto::EventCancelled::NAME => {
            let cancelled = proto::EventCancelled::decode(payload)?;
            let id: EventId = field::id("event_id", &cancelled.event_id)?;
            let closes_us = time("cancel_time", cancelled.cancel_time)?.micros();
            Facts { id: hex(id.as_bytes()), version: cancelled.version, closes_us, ..Facts::default() }
        }
        _ => anyhow::bail!("{name} is not known to the audit"),
    };
    Ok(vec![one])
}

fn of_order(order_id: &str, coupon_id: &str) -> anyhow::Result<Facts> {
    let order: OrderId = field::id("order_id", order_id)?;
    let coupon: Option<CouponId> = field::optional_id("coupon_id", coupon_id)?;
    Ok(Facts {
        id: hex(order.as_bytes()),
        payment: hex(PaymentId::derive(order).as_bytes()),
        coupon: coupon.map(|id| hex(id.as_bytes())).unwrap_or_default(),
        ..Facts::default()
    })
}

fn of_event(scheduled: proto::EventScheduled) -> anyhow::Result<Vec<Facts>> {
    let id: EventId = field::id("event_id", &scheduled.event_id)?;
    let event = Facts {
        id: hex(id.as_bytes()),
        version: scheduled.version,
        opens_us: time("open_time", scheduled.open_time)?.micros(),
        closes_us: time("close_time", scheduled.close_time)?.micros(),
        ..Facts::default()
    };
    let of_item = |item: &proto::ScheduledItem| {
        let id: ItemId = field::id("item_id", &item.item_id)?;
        Ok(Facts { item: hex(id.as_bytes()), ..event.clone() })
    };
    scheduled.items.iter().map(of_item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_proto::messages::{encode, name};

    #[test]
    fn every_message_that_is_taken_is_understood() {
        for reader in Service::ALL {
            for taken in reader.reads().flat_map(|writer| reader.takes(writer)) {
                let error = facts(taken, b"\xff").unwrap_err().to_string();
                assert!(!error.contains("not known"), "{taken}: {error}");
            }
        }
    }

    #[test]
    fn facts_of_an_order_are_of_its_payment_and_coupon_too() {
        let order = OrderId::from_uuid(uuid::Uuid::from_u128(7));
        let coupon = CouponId::from_uuid(uuid::Uuid::from_u128(8));
        let message = proto::OrderExpired { order_id: order.to_string(), coupon_id: coupon.to_string() };
        let (message_type, payload) = encode(&message);
        let facts = facts(name(&message_type).unwrap(), &payload).unwrap();
        assert_eq!(
            (facts[0].id.as_str(), facts[0].coupon.as_str()),
            (hex(order.as_bytes()).as_str(), hex(coupon.as_bytes()).as_str())
        );
        assert_eq!(facts[0].payment, hex(PaymentId::derive(order).as_bytes()));
    }
}
