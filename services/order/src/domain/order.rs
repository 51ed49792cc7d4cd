//! A purchase as the service knows it.

use super::{Draft, EndRequest, MessageBody, OutgoingMessage, PayRequest, Prices, Reserved, State, StateName};
use stampede_vocab::{CouponId, EventId, Fingerprint, ItemId, Money, OrderId, Quantity, RequestId, Timestamp, UserId};

/// A purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Derived from the buyer and the request.
    pub id: OrderId,
    /// Who buys.
    pub buyer: UserId,
    /// Event that all lines are of.
    pub event: EventId,
    /// The buyer's own name for the request that placed it.
    pub request: RequestId,
    /// What that request asked for.
    pub fingerprint: Fingerprint,
    /// Grows by one with each transition.
    pub version: i64,
    /// Where it is in its life.
    pub state: State,
    /// What was bought, 1 to 20 lines of different items.
    pub lines: Vec<Line>,
    /// What it costs.
    pub prices: Prices,
    /// Coupon used for it.
    pub coupon: Option<CouponId>,
    /// Order of arrival in the event: 1 came first.
    pub arrival: i64,
    /// The payments asked for, one an attempt, the first one first.
    pub pay_requests: Vec<PayRequest>,
    /// The request that ended it; none if no person did.
    pub end_request: Option<EndRequest>,
    /// Why the last attempt was declined, if one ever was.
    pub last_decline: Option<String>,
    /// What the buyer got; empty before it was fulfilled.
    pub goods: Vec<Goods>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// One line of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Item bought.
    pub item: ItemId,
    /// How many.
    pub units: Quantity,
    /// Price of one when the units were taken.
    pub unit_price: Money,
    /// Gifts that come with it.
    pub gift_units: i32,
}

/// The item or its gift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodsKind {
    /// The item bought.
    Item,
    /// The gift that came with it.
    Gift,
}

/// What the buyer gets once the order is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goods {
    /// Item bought, or whose gift this is.
    pub item: ItemId,
    /// The item or its gift.
    pub kind: GoodsKind,
    /// How many.
    pub units: i32,
    /// When they were granted.
    pub granted_at: Timestamp,
}

/// Where one order is: what a sweep for what was never written needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderStatus {
    pub id: OrderId,
    pub state: StateName,
    /// Coupon used for it.
    pub coupon: Option<CouponId>,
}

impl Order {
    /// A new order of what is taken for it, to be paid before `pay_by`, or pending until the ledger has answered.
    pub fn place(draft: &Draft, reserved: Reserved, prices: Prices, now: Timestamp, pay_by: Timestamp) -> Self {
        Self {
            id: draft.order,
            buyer: draft.buyer,
            event: draft.event,
            request: draft.request.clone(),
            fingerprint: draft.fingerprint(),
            version: 1,
            state: if reserved.is_committed { State::AwaitingPayment { pay_by } } else { State::Pending },
            lines: reserved.lines,
            prices,
            coupon: draft.coupon,
            arrival: reserved.arrival,
            pay_requests: Vec::new(),
            end_request: None,
            last_decline: None,
            goods: Vec::new(),
            created_at: now,
            updated_at: now,
        }
    }

    pub fn placed(&self) -> OutgoingMessage {
        self.message(MessageBody::Placed {
            buyer: self.buyer,
            event: self.event,
            lines: self.lines.clone(),
            coupon: self.coupon,
            total: self.prices.total,
            arrival: self.arrival,
            placed_at: self.created_at,
            pay_by: self.state.pay_by(),
        })
    }

    /// Payments asked for so far; also the number of the current one.
    pub fn attempts(&self) -> i32 {
        i32::try_from(self.pay_requests.len()).expect("a buyer does not pay two thousand million times")
    }

    /// Whether the order was ended by this very request.
    pub(super) fn was_ended_by(&self, request: &EndRequest) -> bool {
        self.end_request.as_ref() == Some(request)
    }

    /// Everything bought and every gift, as granted `at`.
    pub(super) fn grant(&self, at: Timestamp) -> Vec<Goods> {
        let items = self.lines.iter().map(|line| (line.item, GoodsKind::Item, line.units.get()));
        let gifts = self.lines.iter().map(|line| (line.item, GoodsKind::Gift, line.gift_units));
        items
            .chain(gifts)
            .filter(|&(_, _, units)| units > 0)
            .map(|(item, kind, units)| Goods { item, kind, units, granted_at: at })
            .collect()
    }

    /// What is told about it as it is now.
    pub fn message(&self, body: MessageBody) -> OutgoingMessage {
        OutgoingMessage { order: self.id, version: self.version, body }
    }
}
