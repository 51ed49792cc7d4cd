//! Takes an order: holds its units and its coupon, prices it, writes it. Whatever is held for an order that is not
//! written is given back here or, where it is not known whether it was written, by the sweeps of their owners.

use super::{
    Failure, FindOrder, WriteOrders,
    write_orders::{WriteError, Written},
};
use crate::{
    client::{Coupons, Inventory, PeerError},
    domain::{Draft, Order, PlaceRefusal, Prices, State},
};
use stampede_vocab::{CouponId, Money, SharedClock};
use tracing::Instrument;

/// Takes orders. Cheap to clone.
#[derive(Clone)]
pub struct PlaceOrder {
    inventory: Inventory,
    coupons: Coupons,
    find: FindOrder,
    write: WriteOrders,
    clock: SharedClock,
}

/// What was set aside for an order by this call; perhaps by an earlier call for the same order too.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    stock: bool,
    coupon: Option<CouponId>,
}

impl Held {
    /// What the order that is written for this id does not need.
    ///
    /// Only a pending order of the same event lives on its hold: any other has its units in the ledger, or has given
    /// them back. A coupon is needed until the order has returned it.
    fn beside(self, stored: &Order, draft: &Draft) -> Self {
        let needs_stock = stored.event == draft.event && stored.state == State::Pending;
        let needs_coupon = stored.coupon == self.coupon && !stored.state.has_returned_coupon();
        Self { stock: self.stock && !needs_stock, coupon: self.coupon.filter(|_| !needs_coupon) }
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl PlaceOrder {
    /// Takes orders with the help of these.
    pub fn new(
        inventory: Inventory,
        coupons: Coupons,
        find: FindOrder,
        write: WriteOrders,
        clock: SharedClock,
    ) -> Self {
        Self { inventory, coupons, find, write, clock }
    }

    /// Takes the order, or returns the one that an earlier call with the same request has placed. It runs on a task of
    /// its own: a caller who goes away leaves nothing half done.
    pub async fn run(&self, draft: Draft) -> Result<Order, Failure> {
        let this = self.clone();
        let task = tokio::spawn(async move { this.place(&draft).await }.in_current_span());
        task.await.map_err(|_| Failure::BrokenOff)?
    }

    async fn place(&self, draft: &Draft) -> Result<Order, Failure> {
        let mut held = Held::default();
        match self.prepare(draft, &mut held).await {
            Ok(order) => self.store(draft, order, held).await,
            Err(why) => self.refuse(draft, held, why).await,
        }
    }

    /// Sets everything aside, noting it in `held`, and prices the order.
    async fn prepare(&self, draft: &Draft, held: &mut Held) -> Result<Order, Failure> {
        let hold = self.inventory.reserve(draft).await?.map_err(PlaceRefusal::Stock)?;
        held.stock = true;
        if !hold.covers(draft) {
            // The hold is that of another request under this id.
            return Err(PlaceRefusal::RequestIdReused.into());
        }
        let mut prices = Prices::of(&hold.lines)?;
        if let Some(coupon) = draft.coupon {
            prices = prices.less(self.hold_coupon(draft, coupon, &prices, held).await?)?;
        }
        Ok(Order::place(draft, hold, prices.within(draft.max_total)?, self.clock.now()))
    }

    /// The coupon is noted before the call: if that fails, nobody knows whether it is held.
    async fn hold_coupon(
        &self,
        draft: &Draft,
        coupon: CouponId,
        prices: &Prices,
        held: &mut Held,
    ) -> Result<Money, Failure> {
        held.coupon = Some(coupon);
        let answer = self.coupons.hold(coupon, draft, prices.total.currency).await?;
        answer.map_err(|refusal| {
            held.coupon = None;
            PlaceRefusal::Coupon(refusal).into()
        })
    }

    async fn store(&self, draft: &Draft, order: Order, held: Held) -> Result<Order, Failure> {
        match self.write.write(order).await {
            Ok(Written::New(order)) => Ok(*order),
            Ok(Written::Existing(stored)) => self.repeat(draft, held, *stored).await,
            Err(WriteError::NotWritten(error)) => {
                self.give_back(draft, held).await;
                Err(Failure::Storage(error))
            }
            Err(WriteError::NotTried(error)) => {
                self.give_back(draft, held).await;
                Err(Failure::Batch(error))
            }
            // If it was written after all it needs what is held, so that is left to the sweeps.
            Err(WriteError::Unknown(error)) => Err(Failure::Storage(error)),
        }
    }

    /// A refusal counts only if this is not a repeat: an order that is written stays, whatever is left or open now.
    async fn refuse(&self, draft: &Draft, held: Held, why: Failure) -> Result<Order, Failure> {
        if held.is_nothing() && !matches!(why, Failure::Place(_)) {
            return Err(why);
        }
        match self.find.find(draft.order).await? {
            Some(stored) => self.repeat(draft, held, stored).await,
            None => {
                self.give_back(draft, held).await;
                Err(why)
            }
        }
    }

    async fn repeat(&self, draft: &Draft, held: Held, stored: Order) -> Result<Order, Failure> {
        self.give_back(draft, held.beside(&stored, draft)).await;
        if stored.fingerprint == draft.fingerprint() { Ok(stored) } else { Err(PlaceRefusal::RequestIdReused.into()) }
    }

    /// Gives back as well as it can; what stays held is found by the sweeps.
    async fn give_back(&self, draft: &Draft, held: Held) {
        if held.stock {
            left_to_sweep(self.inventory.release(draft.event, draft.order).await);
        }
        if let Some(coupon) = held.coupon {
            left_to_sweep(self.coupons.release(coupon, draft.order).await);
        }
    }
}

fn left_to_sweep(outcome: Result<(), PeerError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a hold could not be given back and is left to the sweep");
    }
}
