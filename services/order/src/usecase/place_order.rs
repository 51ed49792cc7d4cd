//! PlaceOrder: reserves the units, holds the coupon, computes the price, and writes the order.
//!
//! Requests for one order may be concurrent, here and in other replicas: double clicks with the same body, and other
//! bodies under the same `request_id`. The ledger stores the fingerprint of the body, so a request with another body
//! neither gets nor frees the units. Requests with the same body share their units and their coupon: inventory counts
//! the reservations, and the last one to be withdrawn frees the units. After any other failure a duplicate may still
//! have succeeded, so what was reserved is left to the sweeps of its owners. They wait longer than an order may take to
//! be written.

use super::{
    Error, FindOrder, WriteOrders,
    write_orders::{WriteError, Written},
};
use crate::{
    client::{Coupons, Inventory, PeerError},
    domain::{Draft, Order, PaymentPolicy, PlaceRefusal, Prices, State, StockRefusal},
};
use stampede_chassis::Deadline;
use stampede_vocab::{CouponId, Money, OrderId, Timestamp};
use std::time::Duration;
use tracing::Instrument;

/// Places orders. Cheap to clone.
#[derive(Clone)]
pub struct PlaceOrder {
    inventory: Inventory,
    coupons: Coupons,
    find: FindOrder,
    write: WriteOrders,
    write_limit: Duration,
    policy: PaymentPolicy,
}

/// The reservations that are known to exist for this body of the order, made by this call or a concurrent duplicate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// Identifies this call's reservation at inventory.
    stock: Option<Timestamp>,
    coupon: Option<CouponId>,
}

impl Held {
    /// Returns the part that the stored order under this id does not need. It needs the units unless it was cancelled
    /// before their commit: they are in the ledger, and its messages free them. It needs the coupon if it has this body
    /// and has not returned it.
    fn unneeded_by(self, stored: &Order, draft: &Draft) -> Self {
        let needs_stock = !matches!(stored.state, State::Cancelled { .. });
        let needs_coupon = stored.fingerprint == draft.fingerprint() && !stored.state.has_returned_coupon();
        Self { stock: self.stock.filter(|_| !needs_stock), coupon: self.coupon.filter(|_| !needs_coupon) }
    }
}

impl PlaceOrder {
    /// Places orders through these clients, each within `write_limit` of its arrival.
    pub fn new(
        inventory: Inventory,
        coupons: Coupons,
        find: FindOrder,
        write: WriteOrders,
        write_limit: Duration,
        policy: PaymentPolicy,
    ) -> Self {
        Self { inventory, coupons, find, write, write_limit, policy }
    }

    /// Places the order, or returns the one that an earlier call of the same request has placed. Runs on a task of its
    /// own, so that a cancelled call is completed. Begins no reservation after the caller's deadline.
    pub async fn run(&self, draft: Draft) -> Result<Order, Error> {
        let (this, deadline) = (self.clone(), Deadline::current());
        let task = tokio::spawn(async move { this.place(&draft, deadline).await }.in_current_span());
        task.await.map_err(|_| Error::BrokenOff)?
    }

    /// Counts the write limit from before the reservation, so no reservation is older than the order that is written
    /// for it.
    async fn place(&self, draft: &Draft, deadline: Option<Deadline>) -> Result<Order, Error> {
        let write_by = Deadline::after(self.write_limit);
        let begin_by = deadline.map_or(write_by, |deadline| deadline.min(write_by));
        let mut held = Held::default();
        let prepared = write_by.bound(self.prepare(draft, begin_by, &mut held)).await;
        match prepared.unwrap_or(Err(Error::TooLate)) {
            Ok(order) => self.store(draft, order, held, write_by).await,
            Err(Error::Place(refusal)) => self.refuse(draft, held, refusal).await,
            Err(failure) => Err(failure),
        }
    }

    /// Reserves the units, holds the coupon, stores both in `held`, and prices the order. Begins no reservation after
    /// `begin_by`; once units are reserved, it goes on to the end.
    async fn prepare(&self, draft: &Draft, begin_by: Deadline, held: &mut Held) -> Result<Order, Error> {
        let reserved = begin_by.scope(self.inventory.reserve(draft)).await??;
        held.stock = reserved.request_time;
        let mut prices = Prices::of(&reserved.lines)?;
        if let Some(coupon) = draft.coupon {
            prices = prices.with_discount(self.hold_coupon(draft, coupon, &prices, held).await?)?;
        }
        let now = Timestamp::now();
        let pay_deadline = now.plus(self.policy.pay_window);
        Ok(Order::place(draft, reserved, prices.checked_against(draft.max_total)?, now, pay_deadline))
    }

    async fn hold_coupon(
        &self,
        draft: &Draft,
        coupon: CouponId,
        prices: &Prices,
        held: &mut Held,
    ) -> Result<Money, Error> {
        let discount = self.coupons.hold(coupon, draft, prices.total.currency).await??;
        held.coupon = Some(coupon);
        Ok(discount)
    }

    async fn store(&self, draft: &Draft, order: Order, held: Held, write_by: Deadline) -> Result<Order, Error> {
        match self.write.write(order, write_by).await {
            Ok(Written::New(order)) => Ok(*order),
            Ok(Written::Existing(stored)) => self.answer_repeat(draft, held, *stored).await,
            Err(WriteError::NotTried(error)) => Err(Error::Batch(error)),
            Err(WriteError::TooLate) => Err(Error::TooLate),
            Err(WriteError::Failed(error)) => Err(Error::Db(error)),
        }
    }

    /// Refuses the order unless the request is a repeat: a written order is returned whatever the stock or the window
    /// is now. Most refusals of inventory mean that the order was not written, and most of a crowd is refused: then the
    /// database is not read.
    async fn refuse(&self, draft: &Draft, held: Held, refusal: PlaceRefusal) -> Result<Order, Error> {
        let may_be_written = match &refusal {
            _ if held.stock.is_some() => true,
            PlaceRefusal::RequestIdReused => false,
            PlaceRefusal::Stock(StockRefusal { reason, .. }) => reason.may_be_written(),
            _ => true,
        };
        if !may_be_written {
            return Err(refusal.into());
        }
        match self.find.find(draft.order).await? {
            Some(stored) => self.answer_repeat(draft, held, stored).await,
            None => {
                self.release(draft, held).await;
                Err(refusal.into())
            }
        }
    }

    async fn answer_repeat(&self, draft: &Draft, held: Held, stored: Order) -> Result<Order, Error> {
        self.release(draft, held.unneeded_by(&stored, draft)).await;
        if stored.fingerprint == draft.fingerprint() { Ok(stored) } else { Err(PlaceRefusal::RequestIdReused.into()) }
    }

    /// Releases the units and the coupon; a sweep finds what could not be released. Units that a duplicate has reserved
    /// too stay reserved.
    async fn release(&self, draft: &Draft, held: Held) {
        if let Some(request_time) = held.stock {
            log_failed_release(draft.order, self.inventory.release(draft.event, draft.order, request_time).await);
        }
        if let Some(coupon) = held.coupon {
            log_failed_release(draft.order, self.coupons.release(coupon, draft).await);
        }
    }
}

fn log_failed_release(order: OrderId, outcome: Result<(), PeerError>) {
    if let Err(error) = outcome {
        tracing::warn!(order.id = %order, error.cause = %error, "units or a coupon are left to the sweep");
    }
}
