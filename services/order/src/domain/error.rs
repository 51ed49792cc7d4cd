//! The refusals of orders and of their changes, with the sentences that callers get. `rpc/problem.rs` maps each to its
//! reason and field.

use super::StateName;
use stampede_vocab::{Currency, Money};
use std::time::Duration;

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceRefusal {
    /// Inventory refuses to reserve its units.
    #[error("{}", .0.reason)]
    Stock(StockRefusal),
    /// The coupon cannot be used for it.
    #[error("{0}")]
    Coupon(CouponRefusal),
    /// The total does not fit into 64 bits of minor units.
    #[error("the total is too large to be an amount")]
    TotalOverflow,
    /// Two amounts have different currencies.
    #[error("the order is in {currency}")]
    CurrencyMismatch {
        field: &'static str,
        /// Currency of the order.
        currency: Currency,
    },
    /// The total is over the buyer's limit.
    #[error("the total is more than max_total")]
    PriceChanged { total: Money },
    /// The `request_id` was used for another order.
    #[error("the request_id was used for another order: choose a new one")]
    RequestIdReused,
}

/// Inventory's refusal of one reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockRefusal {
    pub reason: StockReason,
    /// Index of the line at fault; `None` if the event is.
    pub line: Option<usize>,
    /// Units that are left or that the limit still allows; 0 where it does not apply.
    pub allowed_units: i32,
}

/// Why inventory refuses a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StockReason {
    /// No stock of the event was ever staged.
    #[error("nothing of this event is on sale")]
    EventNotFound,
    #[error("the event has not opened")]
    EventNotOpen,
    #[error("the event has closed")]
    EventClosed,
    #[error("not enough units are left")]
    SoldOut,
    /// The buyer would have more than the limit.
    #[error("you would have more than the limit per buyer")]
    LimitReached,
    /// The event does not offer the item.
    #[error("the event does not offer this item")]
    ItemNotFound,
    /// The stock is being staged or rebuilt.
    #[error("the stock is being staged: try again shortly")]
    NotReady,
    /// The lines are of more than one currency.
    #[error("the items are of more than one currency")]
    CurrencyMismatch,
    /// The order was written, and has given up its units since. It is found and returned, so that the sentence is read
    /// only if its row was lost: the one of `NotReady`.
    #[error("the stock is being staged: try again shortly")]
    Released,
}

impl StockReason {
    /// Returns whether the order may have been written. Any other refusal means that it was not, since a written order
    /// has its units in the ledger.
    pub const fn may_be_written(self) -> bool {
        matches!(self, Self::NotReady | Self::Released)
    }
}

/// Why the coupon service refuses to hold a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CouponRefusal {
    /// There is no such coupon, or it is somebody else's.
    #[error("you have no such coupon")]
    NotFound,
    /// Another order holds or used it.
    #[error("the coupon is held or used by another order")]
    InUse,
    /// It counts in another event only.
    #[error("the coupon counts in another event")]
    WrongEvent,
    /// Its discount is of another currency.
    #[error("the coupon is of another currency than the items")]
    CurrencyMismatch,
}

/// Why a change of an order is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// There is no such order, or it is somebody else's.
    #[error("there is no such order")]
    NotFound,
    /// The `request_id` was used for a payment with another method.
    #[error("the request_id was used for another payment: choose a new one")]
    RequestIdReused,
    /// Not in a state to be paid.
    #[error("an order that is {} cannot be paid", .0.as_str())]
    NotPayable(StateName),
    #[error("the time to pay is over")]
    PaymentDeadlinePassed,
    /// The most payments have been declined, or the last decline was too recent.
    #[error("too many payments of the order were declined")]
    TooManyAttempts {
        /// Payments so far.
        attempts: i32,
        /// Time until the next one is allowed; `None` if none is.
        wait: Option<Duration>,
    },
    /// Not in a state to be cancelled.
    #[error("an order that is {} cannot be cancelled", .0.as_str())]
    NotCancellable(StateName),
    /// Not in a state to be refunded.
    #[error("an order that is {} cannot be refunded", .0.as_str())]
    NotRefundable(StateName),
}
