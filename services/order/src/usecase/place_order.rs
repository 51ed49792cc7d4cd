//! Takes an order: holds its units and its coupon, prices it, writes it.
//!
//! Several requests for one order may be under way at once, here and in other replicas: double clicks with the same
//! body, and other bodies under the same `request_id`. Holds carry the fingerprint of the body, so another body neither
//! gets nor returns what this one holds. Requests of the same body share their holds, so one of them gives back only
//! where every other is refused as well; whatever failed for another reason may have succeeded for a duplicate, and
//! what is held then is left to the sweeps of its owners. They wait longer than an order may take from its arrival to
//! its row.

use super::{
    Error, FindOrder, WriteOrders,
    write_orders::{WriteError, Written},
};
use crate::{
    client::{Coupons, Inventory, PeerError},
    domain::{Draft, Order, PlaceRefusal, Prices, State},
};
use stampede_chassis::Deadline;
use stampede_vocab::{CouponId, Money, Timestamp};
use std::time::Duration;
use tracing::Instrument;

/// Takes orders. Cheap to clone.
#[derive(Clone)]
pub struct PlaceOrder {
    inventory: Inventory,
    coupons: Coupons,
    find: FindOrder,
    write: WriteOrders,
    write_limit: Duration,
}

/// What is known to be set aside for this body of the order, by this call or a concurrent duplicate of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// When the units were last asked for, as this call was told.
    stock: Option<Timestamp>,
    coupon: Option<CouponId>,
}

impl Held {
    /// What the order that is written under this id does not need.
    ///
    /// What was written for another body never lives on the holds of this one. What was written for this body lives on
    /// its units while it is pending (then they are in the ledger, or given back), and on its coupon until it has
    /// returned it.
    fn beside(self, stored: &Order, draft: &Draft) -> Self {
        if stored.fingerprint != draft.fingerprint() {
            return self;
        }
        let needs_stock = stored.state == State::Pending;
        let needs_coupon = !stored.state.has_returned_coupon();
        Self { stock: self.stock.filter(|_| !needs_stock), coupon: self.coupon.filter(|_| !needs_coupon) }
    }
}

impl PlaceOrder {
    /// Takes orders with the help of these, each within `write_limit` of its arrival.
    pub fn new(
        inventory: Inventory,
        coupons: Coupons,
        find: FindOrder,
        write: WriteOrders,
        write_limit: Duration,
    ) -> Self {
        Self { inventory, coupons, find, write, write_limit }
    }

    /// Takes the order, or returns the one that an earlier call with the same request has placed. It runs on a task of
    /// its own: a caller who goes away leaves nothing half done.
    pub async fn run(&self, draft: Draft) -> Result<Order, Error> {
        let this = self.clone();
        let task = tokio::spawn(async move { this.place(&draft).await }.in_current_span());
        task.await.map_err(|_| Error::BrokenOff)?
    }

    /// The time counts from before anything is held, so a hold is always younger than the order that is to be written.
    async fn place(&self, draft: &Draft) -> Result<Order, Error> {
        let write_by = Deadline::after(self.write_limit);
        let mut held = Held::default();
        let prepared = write_by.bound(self.prepare(draft, &mut held)).await;
        match prepared.unwrap_or(Err(Error::TooLate)) {
            Ok(order) => self.store(draft, order, held, write_by).await,
            Err(Error::Place(refusal)) => self.refuse(draft, held, refusal).await,
            Err(failure) => Err(failure),
        }
    }

    /// Sets everything aside, noting it in `held`, and prices the order.
    async fn prepare(&self, draft: &Draft, held: &mut Held) -> Result<Order, Error> {
        let hold = self.inventory.reserve(draft).await??;
        held.stock = Some(hold.held_at);
        let mut prices = Prices::of(&hold.lines)?;
        if let Some(coupon) = draft.coupon {
            prices = prices.less(self.hold_coupon(draft, coupon, &prices, held).await?)?;
        }
        Ok(Order::place(draft, hold, prices.within(draft.max_total)?, Timestamp::now()))
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
            Ok(Written::Existing(stored)) => self.repeat(draft, held, *stored).await,
            Err(WriteError::NotTried(error)) => Err(Error::Batch(error)),
            Err(WriteError::TooLate) => Err(Error::TooLate),
            Err(WriteError::Failed(error)) => Err(Error::Db(error)),
        }
    }

    /// A refusal counts only if this is not a repeat: an order that is written stays, whatever is left or open now.
    ///
    /// What a body asks for does not change, nor do prices, so a duplicate that has the same holds is refused as this
    /// one is. The exception is a coupon that was in use and came free in between: a duplicate that asked for the units
    /// before this call, and for the coupon after it, is written without its hold in Redis, and the ledger decides
    /// about it.
    async fn refuse(&self, draft: &Draft, held: Held, refusal: PlaceRefusal) -> Result<Order, Error> {
        match self.find.find(draft.order).await? {
            Some(stored) => self.repeat(draft, held, stored).await,
            None => {
                self.give_back(draft, held).await;
                Err(refusal.into())
            }
        }
    }

    async fn repeat(&self, draft: &Draft, held: Held, stored: Order) -> Result<Order, Error> {
        self.give_back(draft, held.beside(&stored, draft)).await;
        if stored.fingerprint == draft.fingerprint() { Ok(stored) } else { Err(PlaceRefusal::RequestIdReused.into()) }
    }

    /// Gives back as well as it can; what stays held is found by the sweeps. Units that a duplicate has asked for since
    /// stay with it.
    async fn give_back(&self, draft: &Draft, held: Held) {
        if let Some(held_at) = held.stock {
            left_to_sweep(self.inventory.release(draft, held_at).await);
        }
        if let Some(coupon) = held.coupon {
            left_to_sweep(self.coupons.release(coupon, draft).await);
        }
    }
}

fn left_to_sweep(outcome: Result<(), PeerError>) {
    if let Err(error) = outcome {
        tracing::warn!(error.cause = %error, "a hold could not be given back and is left to the sweep");
    }
}
