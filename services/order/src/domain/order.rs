//! Orders, their lines and their goods.

use super::{Draft, EndRequest, MessageBody, OutgoingMessage, PayRequest, Prices, Reserved, State, StateName};
use stampede_vocab::{
    CouponId, EventId, Fingerprint, ItemId, Money, OrderId, PaymentId, Quantity, RequestId, Timestamp, UserId,
};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Derived from the buyer and the request.
    pub id: OrderId,
    pub buyer: UserId,
    /// Event that all lines are of.
    pub event: EventId,
    /// Idempotency key of the request that placed it.
    pub request: RequestId,
    pub fingerprint: Fingerprint,
    /// Grows by one with each transition.
    pub version: i64,
    pub state: State,
    /// 1 to 20 lines of different items.
    pub lines: Vec<Line>,
    pub prices: Prices,
    pub coupon: Option<CouponId>,
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
    /// Its payment requests, one an attempt, in order.
    pub pay_requests: Vec<PayRequest>,
    /// The request that ended it; `None` if none did.
    pub end_request: Option<EndRequest>,
    /// Why the last attempt was declined, if one ever was.
    pub last_decline: Option<String>,
    /// How often it has requested again the answer that it waits for in its state.
    pub asks: i32,
    /// How it is stored.
    pub form: Form,
    /// When it was accepted.
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The form in which an order is stored. It has no effect on its transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One row that holds the lines and payments.
    OneRow,
    /// Rows of several tables, as an earlier release writes and reads them.
    Tables,
}

/// One line of an order. Its titles are reference-counted, since an order is cloned for its message and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub item: ItemId,
    pub units: Quantity,
    /// Price of one unit when it was reserved.
    pub unit_price: Money,
    pub gift_units: i32,
    /// Title of the item when it was reserved; empty if it was not known.
    pub title: Arc<str>,
    /// Title of the item's gift, even if no gift comes with this line; empty if the item has none, or it was not known.
    pub gift_title: Arc<str>,
}

/// The item or its gift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodsKind {
    Item,
    /// The gift that came with it.
    Gift,
}

/// A grant of units of an item or gift, once the order is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goods {
    /// The item, or the item that the gift came with.
    pub item: ItemId,
    /// The item or its gift.
    pub kind: GoodsKind,
    pub units: i32,
    pub grant_time: Timestamp,
    /// Title of the item or the gift; empty if it was not known.
    pub title: Arc<str>,
}

/// The state of one order, for sweeps that look up orders which may never have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderStatus {
    pub id: OrderId,
    /// `None` if this version does not know the state. The order is written all the same.
    pub state: Option<StateName>,
    pub coupon: Option<CouponId>,
}

impl Order {
    /// Returns a new order of reserved units: to be paid before `pay_deadline`, or pending if the units are not
    /// committed. Its form is one row unless the writer changes that.
    pub fn place(draft: &Draft, reserved: Reserved, prices: Prices, now: Timestamp, pay_deadline: Timestamp) -> Self {
        Self {
            id: draft.order,
            buyer: draft.buyer,
            event: draft.event,
            request: draft.request.clone(),
            fingerprint: draft.fingerprint(),
            version: 1,
            state: if reserved.is_committed { State::AwaitingPayment { pay_deadline } } else { State::Pending },
            lines: reserved.lines,
            prices,
            coupon: draft.coupon,
            arrival: reserved.arrival,
            pay_requests: Vec::new(),
            end_request: None,
            last_decline: None,
            asks: 0,
            form: Form::OneRow,
            created_at: now,
            updated_at: now,
        }
    }

    /// Returns the message that it was placed.
    pub fn placed(&self) -> OutgoingMessage {
        self.message(MessageBody::Placed {
            buyer: self.buyer,
            event: self.event,
            lines: self.lines.clone(),
            coupon: self.coupon,
            total: self.prices.total,
            arrival: self.arrival,
            create_time: self.created_at,
            pay_deadline: self.state.pay_deadline(),
        })
    }

    /// Returns the number of payment requests so far, which is also the number of the current one.
    pub fn attempts(&self) -> i32 {
        i32::try_from(self.pay_requests.len()).expect("a buyer does not pay two thousand million times")
    }

    /// Returns the id of its payment; `None` before the first payment request.
    pub fn payment(&self) -> Option<PaymentId> {
        (!self.pay_requests.is_empty()).then(|| PaymentId::derive(self.id))
    }

    /// Returns whether this request has ended the order.
    pub(super) fn was_ended_by(&self, request: &EndRequest) -> bool {
        self.end_request.as_ref() == Some(request)
    }

    /// Returns the goods that were granted: every item, then every gift; none before it is fulfilled.
    pub fn goods(&self) -> Vec<Goods> {
        let Some(at) = self.state.fulfill_time() else { return Vec::new() };
        let grant = |line: &Line, kind, units, title: &Arc<str>| Goods {
            item: line.item,
            kind,
            units,
            grant_time: at,
            title: Arc::clone(title),
        };
        let items = self.lines.iter().map(|line| grant(line, GoodsKind::Item, line.units.get(), &line.title));
        let gifts = self.lines.iter().map(|line| grant(line, GoodsKind::Gift, line.gift_units, &line.gift_title));
        items.chain(gifts).filter(|goods| goods.units > 0).collect()
    }

    /// Returns a message about it, at its current version.
    pub fn message(&self, body: MessageBody) -> OutgoingMessage {
        OutgoingMessage { order: self.id, version: self.version, body }
    }
}
