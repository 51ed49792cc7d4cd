//! Rows as they are stored, and their conversion to orders. Fails for a combination of columns that no order can have,
//! and names it.

use super::{
    end_requests, goods,
    lines::{self, LineRow},
    pay_requests,
};
use crate::domain::{EndRequest, EndVerb, Goods, Order, PayRequest, Prices, RefundOrigin, State, StateName};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::DbError;
use stampede_vocab::{CouponId, Currency, EventId, Fingerprint, Money, OrderId, RequestId, Timestamp, UserId};
use std::fmt::Display;
use uuid::Uuid;

/// The columns of [`OrderRow`].
pub(super) const COLUMNS: &str = "id, user_id, event_id, request_id, request_fingerprint, state, version, currency, \
     subtotal_minor, discount_minor, total_minor, coupon_id, arrival, payment_attempts, pay_deadline_us, last_decline, \
     fulfilled_at_us, created_us, updated_us";

#[derive(FromRow)]
pub(super) struct OrderRow {
    id: Uuid,
    user_id: Uuid,
    event_id: Uuid,
    request_id: String,
    request_fingerprint: Vec<u8>,
    state: String,
    version: i64,
    currency: String,
    subtotal_minor: i64,
    discount_minor: i64,
    total_minor: i64,
    coupon_id: Option<Uuid>,
    arrival: i64,
    payment_attempts: i32,
    pay_deadline_us: Option<i64>,
    last_decline: Option<String>,
    fulfilled_at_us: Option<i64>,
    created_us: i64,
    updated_us: i64,
}

/// Converts rows to orders, and reads everything that belongs to them by one query a table.
///
/// Related rows are read after the order's row, so everything that it refers to exists. Rows that another transaction
/// has added since are left out.
pub(super) async fn assemble(conn: &mut MySqlConnection, rows: Vec<OrderRow>) -> Result<Vec<Order>, DbError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids_of = |wanted: fn(&OrderRow) -> bool| -> Vec<Uuid> {
        rows.iter().filter(|row| wanted(row)).map(|row| row.id).collect()
    };
    let mut lines = lines::load(conn, &ids_of(|_| true)).await?;
    let mut goods = goods::load(conn, &ids_of(|row| row.fulfilled_at_us.is_some())).await?;
    let mut pay_requests = pay_requests::load(conn, &ids_of(|row| row.payment_attempts > 0)).await?;
    let mut end_requests = end_requests::load(conn, &ids_of(OrderRow::may_be_ended_by_request)).await?;
    let whole = |row: OrderRow| {
        let parts = Parts {
            lines: lines.remove(&row.id).unwrap_or_default(),
            goods: goods.remove(&row.id).unwrap_or_default(),
            pay_requests: pay_requests.remove(&row.id).unwrap_or_default(),
            end_request: end_requests.remove(&row.id),
        };
        row.order(parts)
    };
    rows.into_iter().map(whole).collect()
}

/// The rows of other tables that belong to an order.
struct Parts {
    lines: Vec<LineRow>,
    goods: Vec<Goods>,
    pay_requests: Vec<PayRequest>,
    end_request: Option<EndRequest>,
}

impl OrderRow {
    /// Whether to read the request that ended it: most orders have none.
    fn may_be_ended_by_request(&self) -> bool {
        let ends = [StateName::Cancelled, StateName::Refunding, StateName::Refunded];
        ends.iter().any(|end| end.as_str() == self.state)
    }

    fn order(self, parts: Parts) -> Result<Order, DbError> {
        let currency: Currency = self.currency.parse().map_err(|error| self.inconsistent(error))?;
        let lines: Vec<_> = parts.lines.iter().map(|line| line.line(currency)).collect::<Result<_, _>>()?;
        if lines.is_empty() {
            return Err(self.inconsistent("it has no lines"));
        }
        Ok(Order {
            id: OrderId::from_uuid(self.id),
            buyer: UserId::from_uuid(self.user_id),
            event: EventId::from_uuid(self.event_id),
            request: RequestId::parse(&self.request_id).map_err(|error| self.inconsistent(error))?,
            fingerprint: Fingerprint::parse(&self.request_fingerprint).map_err(|error| self.inconsistent(error))?,
            version: self.version,
            state: self.state()?,
            lines,
            prices: Prices {
                subtotal: Money::new(self.subtotal_minor, currency),
                discount: Money::new(self.discount_minor, currency),
                total: Money::new(self.total_minor, currency),
            },
            coupon: self.coupon_id.map(CouponId::from_uuid),
            arrival: self.arrival,
            pay_requests: self.known(parts.pay_requests)?,
            end_request: self.fitting(parts.end_request)?,
            last_decline: self.last_decline,
            goods: parts.goods,
            created_at: Timestamp::from_micros(self.created_us),
            updated_at: Timestamp::from_micros(self.updated_us),
        })
    }

    /// Returns the payment requests that the row refers to.
    fn known(&self, mut requests: Vec<PayRequest>) -> Result<Vec<PayRequest>, DbError> {
        let attempts = usize::try_from(self.payment_attempts).map_err(|error| self.inconsistent(error))?;
        if requests.len() < attempts {
            return Err(self.inconsistent("it lacks some of its payments"));
        }
        requests.truncate(attempts);
        Ok(requests)
    }

    /// A caller cancels before the goods are granted and refunds after it. An order may be refunded without a request.
    fn fitting(&self, request: Option<EndRequest>) -> Result<Option<EndRequest>, DbError> {
        let verb = request.as_ref().map(|request| request.verb);
        match (verb, self.fulfilled_at_us) {
            (None, _) | (Some(EndVerb::Cancel), None) | (Some(EndVerb::Refund), Some(_)) => Ok(request),
            (Some(EndVerb::Cancel), Some(_)) => Err(self.inconsistent("it was cancelled after it was fulfilled")),
            (Some(EndVerb::Refund), None) => Err(self.inconsistent("it was refunded on request but never fulfilled")),
        }
    }

    fn state(&self) -> Result<State, DbError> {
        let name = StateName::parse(&self.state).ok_or_else(|| self.inconsistent("no such state"))?;
        let pay_by = self.pay_deadline_us.map(Timestamp::from_micros);
        let fulfilled_at = self.fulfilled_at_us.map(Timestamp::from_micros);
        let refund_origin = RefundOrigin { pay_by, fulfilled_at };
        match (name, pay_by, fulfilled_at) {
            (StateName::Pending, None, None) => Ok(State::Pending),
            (StateName::AwaitingPayment, Some(pay_by), None) => Ok(State::AwaitingPayment { pay_by }),
            (StateName::Paying, Some(pay_by), None) => Ok(State::Paying { pay_by }),
            (StateName::Paid, Some(pay_by), None) => Ok(State::Paid { pay_by }),
            (StateName::Fulfilled, Some(pay_by), Some(at)) => Ok(State::Fulfilled { pay_by, at }),
            (StateName::Expired, Some(pay_by), None) => Ok(State::Expired { pay_by }),
            (StateName::Cancelled, pay_by, None) => Ok(State::Cancelled { pay_by }),
            (StateName::Refunding, ..) => Ok(State::Refunding(refund_origin)),
            (StateName::Refunded, ..) => Ok(State::Refunded(refund_origin)),
            (
                StateName::Pending
                | StateName::AwaitingPayment
                | StateName::Paying
                | StateName::Paid
                | StateName::Fulfilled
                | StateName::Expired
                | StateName::Cancelled,
                ..,
            ) => Err(self.inconsistent("its deadline or time of fulfilment does not fit its state")),
        }
    }

    fn inconsistent(&self, what: impl Display) -> DbError {
        let id = OrderId::from_uuid(self.id);
        DbError::inconsistent(format!("order {id} in state {}: {what}", self.state))
    }
}
