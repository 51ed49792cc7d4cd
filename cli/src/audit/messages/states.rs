//! Checks that each state of an order has exactly one message, by comparing the order with the messages about it.
//!
//! The messages of a day are counted by order while the outbox is read; the orders are read in pages by their key.

use super::{outbox::Written, rules::MESSAGES};
use crate::audit::{hex, named::Named, retention::Retention, sources::Sources, verdict::Audit};
use prost::{Message, Name};
use sqlx::{Row, mysql::MySqlRow};
use stampede_proto::{message::v1 as proto, messages};
use stampede_vocab::{OrderId, PaymentId};
use std::collections::{HashMap, HashSet};

/// Orders of one page.
const PAGE: usize = 1_000;

/// The messages that were written about one order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    placed: u32,
    /// Requests to pay, by attempt.
    requested: Vec<i32>,
    fulfilled: u32,
    cancelled: u32,
    expired: u32,
    paid_late: u32,
    refund_requested: u32,
    refunded: u32,
    last_version: i64,
    /// Whether the money was refunded by hand at the provider, and an operator recorded that: then no message has
    /// requested it.
    is_given_back: bool,
}

/// The messages of all orders.
#[derive(Default)]
pub struct Tallies {
    by_order: HashMap<OrderId, Tally>,
    /// Orders whose payment request an operator has discarded.
    not_requested: HashSet<String>,
}

/// An order as it is stored.
struct Stored {
    id: OrderId,
    state: String,
    version: i64,
    payment_attempts: i32,
    is_fulfilled: bool,
    created_us: i64,
}

const ORDERS: &str = "SELECT id, state, version, payment_attempts, fulfilled_at_us IS NOT NULL, created_us \
     FROM {order}.orders WHERE id > ? ORDER BY id LIMIT ";

/// The number of attempts of each payment.
const TRIED: &str = "SELECT m.n, COUNT(a.attempt) FROM {messages} \
     LEFT JOIN {payment}.attempts a ON a.payment_id = UNHEX(m.payment) GROUP BY m.n";

/// Selects the orders whose refund was recorded and not requested.
const GIVEN_BACK: &str = "SELECT p.order_id FROM {payment}.anomalies n JOIN {payment}.payments p ON p.id = n.payment_id \
     WHERE n.subject = 'REFUND' AND n.kind = 'REFUNDED_ELSEWHERE' AND n.state = 'SETTLED' AND n.verdict = 'REFUNDED'";

impl Stored {
    fn read(row: &MySqlRow) -> anyhow::Result<Self> {
        Ok(Self {
            id: OrderId::try_from_bytes(row.try_get(0)?)?,
            state: row.try_get(1)?,
            version: row.try_get(2)?,
            payment_attempts: row.try_get(3)?,
            is_fulfilled: row.try_get(4)?,
            created_us: row.try_get(5)?,
        })
    }
}

impl Tallies {
    /// Counts a message of the order service.
    pub fn count(&mut self, message: &Written) {
        let Ok(order) = message.content.key.parse::<OrderId>() else { return };
        let tally = self.by_order.entry(order).or_default();
        tally.last_version = tally.last_version.max(message.content.version);
        match messages::name(&message.content.message_type) {
            Some(proto::OrderPlaced::NAME) => tally.placed += 1,
            Some(proto::PaymentRequested::NAME) => {
                let request = proto::PaymentRequested::decode(message.payload.as_slice());
                tally.requested.push(request.map_or(0, |request| request.attempt));
            }
            Some(proto::OrderFulfilled::NAME) => tally.fulfilled += 1,
            Some(proto::OrderCancelled::NAME) => tally.cancelled += 1,
            Some(proto::OrderExpired::NAME) => tally.expired += 1,
            Some(proto::OrderPaidLate::NAME) => tally.paid_late += 1,
            Some(proto::RefundRequested::NAME) => tally.refund_requested += 1,
            Some(proto::OrderRefunded::NAME) => tally.refunded += 1,
            _ => {}
        }
    }

    /// Skips the number of payments of these orders: an operator has discarded a payment request.
    pub fn leave_payments_out<'k>(&mut self, orders: impl Iterator<Item = &'k str>) {
        self.not_requested.extend(orders.map(str::to_owned));
    }

    /// Compares each order with the messages about it, and with the number of attempts to pay it.
    pub async fn compare(mut self, sources: &Sources, retention: Retention, audit: &mut Audit) -> anyhow::Result<()> {
        let (mut wrong, mut untried) = (Named::default(), Named::default());
        let (mut after, mut left_out) = (Vec::new(), 0);
        let given_back = given_back(sources).await?;
        loop {
            let rows = sources.rows_with(&format!("{ORDERS}{PAGE}"), after).await?;
            let page = rows.iter().map(Stored::read).collect::<anyhow::Result<Vec<_>>>()?;
            let Some(last) = page.last() else { break };
            after = last.id.as_bytes().to_vec();
            for (order, tried) in page.iter().zip(tries(sources, &page).await?) {
                let is_tried = tried == i64::from(order.payment_attempts);
                if !is_tried && self.not_requested.contains(&order.id.to_string()) {
                    left_out += 1;
                } else if !is_tried {
                    untried.push(format!("{} (requested {}, tried {tried})", order.id, order.payment_attempts));
                }
                let mut tally = self.by_order.remove(&order.id).unwrap_or_default();
                tally.is_given_back = given_back.contains(&order.id);
                let is_kept = order.created_us >= retention.outboxes_since.micros();
                wrong.extend(tally.objections(order, is_kept).map(|objection| format!("{} ({objection})", order.id)));
            }
        }
        if left_out > 0 {
            audit.leave_out(format!("how often {left_out} orders were paid whose request an operator has discarded"));
        }
        let unknown = self.by_order.keys().map(ToString::to_string).collect();
        audit.breach(4, "messages of an order that does not exist", unknown);
        audit.breach(4, "an order was paid for another number of times than it asked", untried);
        audit.breach(7, "an order's states and its messages are not the same", wrong);
        Ok(())
    }
}

async fn given_back(sources: &Sources) -> anyhow::Result<HashSet<OrderId>> {
    let rows = sources.rows(GIVEN_BACK).await?;
    rows.iter().map(|row| Ok(OrderId::try_from_bytes(row.try_get(0)?)?)).collect()
}

async fn tries(sources: &Sources, page: &[Stored]) -> anyhow::Result<Vec<i64>> {
    let payments = page.iter().map(|order| hex(PaymentId::derive(order.id).as_bytes()));
    let queried: Vec<_> =
        payments.enumerate().map(|(n, payment)| serde_json::json!({"n": n, "payment": payment})).collect();
    let sql = TRIED.replace("{messages}", MESSAGES);
    let mut tries = vec![0; page.len()];
    for row in sources.rows_with(&sql, serde_json::to_string(&queried)?).await? {
        tries[usize::try_from(row.try_get::<i64, _>(0)?)?] = row.try_get(1)?;
    }
    Ok(tries)
}

impl Tally {
    /// Returns the objections to the messages of this order. For an order from before the retention of the outbox, only
    /// to messages that were written too often.
    ///
    /// An order that waits for another service repeats its request, so those two messages may be repeated.
    fn objections(&self, order: &Stored, is_kept: bool) -> impl Iterator<Item = String> {
        let is = |states: &[&str]| states.contains(&order.state.as_str());
        let once = |yes: bool| if yes { 1..=1 } else { 0..=0 };
        let often = |yes: bool| if yes { 1..=u32::MAX } else { 0..=0 };
        // An order that was paid after it had ended was cancelled or expired before.
        let is_refunded = is(&["REFUNDING", "REFUNDED"]);
        let ended_before = is(&["PAID"]) || (is_refunded && !order.is_fulfilled);
        let has_expired = is(&["EXPIRED", "PAID"]) || self.paid_late > 0 || (ended_before && self.cancelled == 0);
        let refund_requested = if is(&["REFUNDED"]) && self.is_given_back { 0..=u32::MAX } else { often(is_refunded) };
        let counts = [
            (proto::OrderPlaced::NAME, self.placed, once(true)),
            (proto::OrderFulfilled::NAME, self.fulfilled, once(order.is_fulfilled)),
            (proto::OrderCancelled::NAME, self.cancelled, if ended_before { 0..=1 } else { once(is(&["CANCELLED"])) }),
            (proto::OrderExpired::NAME, self.expired, once(has_expired)),
            (proto::OrderPaidLate::NAME, self.paid_late, if is(&["PAID"]) { often(true) } else { 0..=u32::MAX }),
            (proto::RefundRequested::NAME, self.refund_requested, refund_requested),
            (proto::OrderRefunded::NAME, self.refunded, once(is(&["REFUNDED"]))),
        ];
        let mut found: Vec<String> = counts
            .into_iter()
            .filter(|(_, count, allowed)| count > allowed.end() || (is_kept && count < allowed.start()))
            .map(|(name, count, _)| format!("{}, but {count} times {name}", order.state))
            .collect();
        let mut requested = self.requested.clone();
        requested.sort_unstable();
        let expected: Vec<i32> = (1..=order.payment_attempts).collect();
        if (is_kept && requested != expected) || requested.windows(2).any(|pair| pair[0] == pair[1]) {
            let name = proto::PaymentRequested::NAME;
            found.push(format!("{} payments, {name} for {requested:?}", order.payment_attempts));
        }
        found.extend(self.version_objection(order, is_kept));
        found.into_iter()
    }

    /// Returns the objection to the version. Every change writes a message, except the return to AWAITING_PAYMENT.
    fn version_objection(&self, order: &Stored, is_kept: bool) -> Option<String> {
        let Self { last_version, .. } = *self;
        let silent = i64::from(order.state == "AWAITING_PAYMENT");
        let is_behind = is_kept && order.version > last_version.saturating_add(silent);
        (order.version < last_version || is_behind)
            .then(|| format!("version {}, the last message has {last_version}", order.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(state: &str, version: i64, payment_attempts: i32, is_fulfilled: bool) -> Stored {
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(1));
        Stored { id, state: state.to_owned(), version, payment_attempts, is_fulfilled, created_us: 0 }
    }

    fn tally(last_version: i64) -> Tally {
        Tally { placed: 1, last_version, ..Tally::default() }
    }

    fn is_right(tally: &Tally, order: &Stored) -> bool {
        tally.objections(order, true).next().is_none()
    }

    #[test]
    fn every_way_that_an_order_goes_has_its_messages() {
        let paid = |last| Tally { requested: vec![1], ..tally(last) };
        for (written, stored) in [
            (tally(1), order("AWAITING_PAYMENT", 1, 0, false)),
            (paid(2), order("PAYING", 2, 1, false)),
            (paid(2), order("AWAITING_PAYMENT", 3, 1, false)),
            (Tally { fulfilled: 1, ..paid(3) }, order("FULFILLED", 3, 1, true)),
            (Tally { requested: vec![1, 2], fulfilled: 1, ..tally(5) }, order("FULFILLED", 5, 2, true)),
            (Tally { cancelled: 1, ..tally(2) }, order("CANCELLED", 2, 0, false)),
            (Tally { expired: 1, ..paid(3) }, order("EXPIRED", 3, 1, false)),
            (Tally { expired: 1, paid_late: 2, ..paid(5) }, order("PAID", 5, 1, false)),
            (Tally { expired: 1, paid_late: 1, fulfilled: 1, ..paid(5) }, order("FULFILLED", 5, 1, true)),
            (Tally { fulfilled: 1, refund_requested: 3, refunded: 1, ..paid(7) }, order("REFUNDED", 7, 1, true)),
            (Tally { expired: 1, refund_requested: 1, ..paid(4) }, order("REFUNDING", 4, 1, false)),
            (Tally { cancelled: 1, refund_requested: 1, refunded: 1, ..paid(5) }, order("REFUNDED", 5, 1, false)),
            (Tally { fulfilled: 1, refunded: 1, is_given_back: true, ..paid(4) }, order("REFUNDED", 4, 1, true)),
            (
                Tally { expired: 1, paid_late: 1, refunded: 1, is_given_back: true, ..paid(5) },
                order("REFUNDED", 5, 1, false),
            ),
        ] {
            let found: Vec<_> = written.objections(&stored, true).collect();
            assert!(found.is_empty(), "{}: {found:?}", stored.state);
        }
    }

    #[test]
    fn what_is_missing_twice_or_too_much_is_objected_to() {
        let paid = Tally { requested: vec![1], fulfilled: 1, ..tally(3) };
        let fulfilled = order("FULFILLED", 3, 1, true);
        for wrong in [
            Tally { placed: 0, ..paid.clone() },
            Tally { placed: 2, ..paid.clone() },
            Tally { fulfilled: 0, ..paid.clone() },
            Tally { fulfilled: 2, ..paid.clone() },
            Tally { cancelled: 1, ..paid.clone() },
            Tally { expired: 1, ..paid.clone() },
            Tally { refunded: 1, ..paid.clone() },
            Tally { refund_requested: 1, ..paid.clone() },
            Tally { requested: vec![], ..paid.clone() },
            Tally { requested: vec![1, 1], ..paid.clone() },
            Tally { requested: vec![2], ..paid.clone() },
            Tally { last_version: 2, ..paid.clone() },
            Tally { last_version: 4, ..paid.clone() },
        ] {
            assert!(!is_right(&wrong, &fulfilled), "{wrong:?}");
        }
        assert!(is_right(&paid, &fulfilled));
        let not_requested = Tally { fulfilled: 1, refunded: 1, requested: vec![1], ..tally(4) };
        assert!(!is_right(&not_requested, &order("REFUNDED", 4, 1, true)), "nobody had it booked");
        let not_requested = Tally { refunded: 0, is_given_back: true, ..not_requested };
        assert!(!is_right(&not_requested, &order("REFUNDING", 4, 1, true)), "what is booked has ended");
    }

    #[test]
    fn of_an_old_order_only_what_was_written_too_often_is_objected_to() {
        let old = order("FULFILLED", 3, 1, true);
        assert_eq!(Tally::default().objections(&old, false).count(), 0);
        assert_eq!(Tally { fulfilled: 2, ..Tally::default() }.objections(&old, false).count(), 1);
    }
}
