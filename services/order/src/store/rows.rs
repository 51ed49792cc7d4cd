//! Stored rows, and their conversion to orders. A combination of columns that no order can have fails, for that order
//! alone, with an error that names it.

use super::{
    end_requests::{self, EndRequestRow},
    lines::{self, LineRow},
    packed,
    pay_requests::{self, PayRequestRow},
};
use crate::domain::{EndRequest, EndVerb, Form, Line, Order, PayRequest, Prices, RefundOrigin, State, StateName};
use sqlx::{FromRow, MySqlConnection};
use stampede_db::DbError;
use stampede_vocab::{CouponId, Currency, EventId, Fingerprint, Money, OrderId, RequestId, Timestamp, UserId};
use std::fmt::Display;
use uuid::Uuid;

/// The columns of [`OrderRow`].
pub(super) const COLUMNS: &str = "id, user_id, event_id, request_id, request_fingerprint, state, version, currency, \
     subtotal_minor, discount_minor, total_minor, coupon_id, arrival, payment_attempts, pay_deadline_us, last_decline, \
     fulfilled_at_us, created_us, updated_us, line_list, pay_list, asks";

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
    line_list: Option<String>,
    pay_list: Option<String>,
    asks: i32,
}

/// An order as it was read.
#[derive(Debug)]
pub struct Stored {
    pub id: OrderId,
    /// Its sort value in the list of its buyer.
    pub created_at: Timestamp,
    /// Its sort value in the list of its event.
    pub arrival: i64,
    /// The order, or why its rows cannot be converted.
    pub order: Result<Order, DbError>,
}

/// Converts rows to orders. Reads their related rows by one query a table; most orders have none.
///
/// Related rows are read after the row of the order, so every one that it counts exists. Rows that another transaction
/// has inserted since are ignored. Under a lock (`are_locked`) there are none of those.
pub(super) async fn assemble(
    conn: &mut MySqlConnection,
    rows: Vec<OrderRow>,
    are_locked: bool,
) -> Result<Vec<Stored>, DbError> {
    let ids_of = |wanted: fn(&OrderRow) -> bool| -> Vec<Uuid> {
        rows.iter().filter(|row| wanted(row)).map(|row| row.id).collect()
    };
    let mut lines = lines::load(conn, &ids_of(|row| row.line_list.is_none())).await?;
    let mut pay_requests = pay_requests::load(conn, &ids_of(OrderRow::has_payment_rows)).await?;
    let mut end_requests = end_requests::load(conn, &ids_of(OrderRow::may_be_ended_by_request)).await?;
    let whole = |row: OrderRow| {
        let parts = Parts {
            lines: lines.remove(&row.id).unwrap_or_default(),
            pay_requests: pay_requests.remove(&row.id).unwrap_or_default(),
            end_request: end_requests.remove(&row.id),
            are_complete: are_locked,
        };
        Stored {
            id: OrderId::from_uuid(row.id),
            created_at: Timestamp::from_micros(row.created_us),
            arrival: row.arrival,
            order: row.order(&parts),
        }
    };
    Ok(rows.into_iter().map(whole).collect())
}

/// The rows of other tables that belong to an order.
struct Parts {
    lines: Vec<LineRow>,
    pay_requests: Vec<PayRequestRow>,
    end_request: Option<EndRequestRow>,
    /// Whether no row can have been inserted since the row of the order was read.
    are_complete: bool,
}

impl OrderRow {
    /// Returns whether it has rows in `pay_requests`: those of the first attempts are in the row of the order.
    fn has_payment_rows(&self) -> bool {
        let in_row = if self.line_list.is_some() { packed::MAX_PAYMENTS } else { 0 };
        usize::try_from(self.payment_attempts).is_ok_and(|attempts| attempts > in_row)
    }

    /// Returns whether a request may have ended it. Most orders have none.
    fn may_be_ended_by_request(&self) -> bool {
        let ends = [StateName::Cancelled, StateName::Refunding, StateName::Refunded];
        ends.iter().any(|end| end.as_str() == self.state)
    }

    fn order(self, parts: &Parts) -> Result<Order, DbError> {
        // First: if a newer version wrote the row, the rest need not be valid for this one.
        let state = self.state()?;
        let currency = Currency::stored(&self.currency).map_err(|error| self.inconsistent(error))?;
        Ok(Order {
            id: OrderId::from_uuid(self.id),
            buyer: UserId::from_uuid(self.user_id),
            event: EventId::from_uuid(self.event_id),
            request: RequestId::parse(&self.request_id).map_err(|error| self.inconsistent(error))?,
            fingerprint: Fingerprint::parse(&self.request_fingerprint).map_err(|error| self.inconsistent(error))?,
            version: self.version,
            state,
            lines: self.lines(&parts.lines, currency)?,
            prices: Prices {
                subtotal: Money::new(self.subtotal_minor, currency),
                discount: Money::new(self.discount_minor, currency),
                total: Money::new(self.total_minor, currency),
            },
            coupon: self.coupon_id.map(CouponId::from_uuid),
            arrival: self.arrival,
            pay_requests: self.pay_requests(parts)?,
            end_request: self.end_request(parts.end_request.as_ref())?,
            asks: self.asks,
            form: if self.line_list.is_some() { Form::OneRow } else { Form::Tables },
            last_decline: self.last_decline,
            created_at: Timestamp::from_micros(self.created_us),
            updated_at: Timestamp::from_micros(self.updated_us),
        })
    }

    fn lines(&self, rows: &[LineRow], currency: Currency) -> Result<Vec<Line>, DbError> {
        let lines: Vec<Line> = match &self.line_list {
            Some(list) => packed::lines(list, currency).map_err(|error| self.inconsistent(error))?,
            None => rows.iter().map(|line| line.line(currency)).collect::<Result<_, _>>()?,
        };
        if lines.is_empty() {
            return Err(self.inconsistent("it has no lines"));
        }
        Ok(lines)
    }

    /// Returns the payment requests that the row refers to.
    fn pay_requests(&self, parts: &Parts) -> Result<Vec<PayRequest>, DbError> {
        let attempts = usize::try_from(self.payment_attempts).map_err(|error| self.inconsistent(error))?;
        let mut requests = match &self.pay_list {
            Some(list) => packed::payments(list).map_err(|error| self.inconsistent(error))?,
            None => Vec::new(),
        };
        for row in &parts.pay_requests {
            requests.push(row.pay_request().map_err(|error| self.inconsistent(error))?);
        }
        if requests.len() < attempts {
            return Err(self.inconsistent("it lacks some of its payments"));
        }
        if parts.are_complete && requests.len() > attempts {
            return Err(self.inconsistent("it has more payments than it counts"));
        }
        requests.truncate(attempts);
        Ok(requests)
    }

    /// Returns the request that ended the order, if there is one. Fails if it does not fit: an order is cancelled
    /// before it is fulfilled, and refunded on request only after that.
    fn end_request(&self, row: Option<&EndRequestRow>) -> Result<Option<EndRequest>, DbError> {
        let request = row.map(EndRequestRow::end_request).transpose()?;
        let verb = request.as_ref().map(|request| request.verb);
        match (verb, self.fulfilled_at_us) {
            (None, _) | (Some(EndVerb::Cancel), None) | (Some(EndVerb::Refund), Some(_)) => Ok(request),
            (Some(EndVerb::Cancel), Some(_)) => Err(self.inconsistent("it was cancelled after it was fulfilled")),
            (Some(EndVerb::Refund), None) => Err(self.inconsistent("it was refunded on request but never fulfilled")),
        }
    }

    fn state(&self) -> Result<State, DbError> {
        let Some(name) = StateName::parse(&self.state) else {
            return Err(DbError::newer(format!("order {} is {}", OrderId::from_uuid(self.id), self.state)));
        };
        let pay_deadline = self.pay_deadline_us.map(Timestamp::from_micros);
        let fulfill_time = self.fulfilled_at_us.map(Timestamp::from_micros);
        let refund_origin = RefundOrigin { pay_deadline, fulfill_time };
        match (name, pay_deadline, fulfill_time) {
            (StateName::Pending, None, None) => Ok(State::Pending),
            (StateName::AwaitingPayment, Some(pay_deadline), None) => Ok(State::AwaitingPayment { pay_deadline }),
            (StateName::Paying, Some(pay_deadline), None) => Ok(State::Paying { pay_deadline }),
            (StateName::Paid, Some(pay_deadline), None) => Ok(State::Paid { pay_deadline }),
            (StateName::Fulfilled, Some(pay_deadline), Some(at)) => Ok(State::Fulfilled { pay_deadline, at }),
            (StateName::Expired, Some(pay_deadline), None) => Ok(State::Expired { pay_deadline }),
            (StateName::Cancelled, pay_deadline, None) => Ok(State::Cancelled { pay_deadline }),
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
