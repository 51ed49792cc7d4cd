//! Applies the requests of the order service: queues charges and refunds, and declines the queued charges of ended
//! orders. Nothing is charged here; the workers charge after the commit. Requests may be repeated, even after later
//! ones of the same order: the state of the payment decides what they change.
//!
//! If a permit of the charge pool is free, an attempt is taken over instead of queued: the transaction of its message
//! stores it as CHARGING, with a lease, which saves the transaction of a claim. If this process is killed before it
//! charges, the reconciler finds the attempt when the lease has expired, as it does for any claim.

use super::{
    Context, Permits,
    working_set::{Saved, WorkingSet},
};
use crate::{
    domain::{Action, AttemptKey, ChargeRequest, OrderRequest, Payment, Refusal},
    provider::Breaker,
    store,
};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statements};
use stampede_vocab::{PaymentId, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Db(#[from] DbError),
    /// One message can never be applied.
    #[error("{refusal}")]
    Refused {
        /// Index of the message in its batch.
        index: usize,
        refusal: Refusal,
    },
    /// The stored payment of one message cannot be read.
    #[error("{error}")]
    Unreadable {
        /// Index of the message in its batch.
        index: usize,
        error: DbError,
    },
}

/// An attempt that is leased to this process, and the permit to charge it.
pub type TakenOver = (ChargeRequest, OwnedSemaphorePermit);

/// The effects of a batch after its commit. A rollback drops it, which frees its permits.
#[derive(Debug, Default)]
pub struct Followed {
    /// New attempts, taken over or not.
    requested: Vec<AttemptKey>,
    taken_over: Vec<TakenOver>,
    saved: Saved,
    /// Payments of ended orders that are captured, or may still be.
    ended: Vec<PaymentId>,
}

/// Follows orders. Cheap to clone.
#[derive(Clone)]
pub struct FollowOrders {
    context: Context,
    charging: Permits,
    breaker: Breaker,
}

impl FollowOrders {
    /// Takes attempts over with the permits of the charge pool, unless the breaker is open.
    pub fn new(context: Context, charging: Permits, breaker: Breaker) -> Self {
        Self { context, charging, breaker }
    }

    /// Applies requests in order, inside the caller's transaction. Each comes with its index in the batch. A retry of
    /// the transaction takes over anew, by the permits that are free then.
    pub async fn apply(
        &self,
        conn: &mut MySqlConnection,
        requests: Vec<(usize, OrderRequest)>,
    ) -> Result<Followed, FollowError> {
        let (now, lease_until) = self.context.lease();
        let ids = requests.iter().map(|(_, request)| PaymentId::derive(request.order_id));
        let mut payments = WorkingSet::lock(conn, ids).await?;
        let mut followed = Followed::default();
        for (index, request) in requests {
            let id = PaymentId::derive(request.order_id);
            payments.readable(id).map_err(|error| FollowError::Unreadable { index, error })?;
            let refused = |refusal| FollowError::Refused { index, refusal };
            followed.apply(&mut payments, request, now).map_err(refused)?;
        }
        // After all requests: a stop later in the batch must find the attempt still queued, to decline it.
        let to_take_over = followed.to_take_over(&mut payments, self.breaker.is_closed());
        followed.take_over(&mut payments, &to_take_over, &self.charging, (now, lease_until));
        // All writes go out in one round trip: none needs the answer of another.
        let mut writes = Statements::new();
        followed.saved = payments.push_save(&mut writes);
        store::outbox::push_append(&mut writes, &followed.saved.messages);
        store::ended_orders::push_insert(&mut writes, &followed.ended, now.plus(self.context.ended_order_age));
        writes.run(conn).await?;
        Ok(followed)
    }

    /// Wakes the pools and the relay, and returns the attempts that were taken over, each to be charged with its permit
    /// at once. To be called after the commit.
    #[must_use]
    pub fn committed(&self, followed: Followed) -> Vec<TakenOver> {
        let Followed { requested, taken_over, saved, ended: _ } = followed;
        if taken_over.len() < requested.len() {
            self.context.charges_queued.notify_one();
        }
        self.context.wake(&saved);
        taken_over
    }
}

impl Followed {
    fn apply(&mut self, payments: &mut WorkingSet, request: OrderRequest, now: Timestamp) -> Result<(), Refusal> {
        let OrderRequest { order_id, action, traceparent } = request;
        let id = PaymentId::derive(order_id);
        match action {
            Action::Charge { user_id, attempt, amount, payment_method } => {
                let payment = payments.get_or_insert_with(id, || Payment::open(order_id, user_id, amount, now));
                let step = payment.request_charge(attempt, amount, payment_method, traceparent, now)?;
                self.requested.extend(step.as_ref().and_then(|step| step.attempt));
                payments.record(step);
            }
            Action::Refund { amount } => {
                let payment = payments.get_mut(id).ok_or(Refusal::NothingCaptured(order_id))?;
                let step = payment.request_refund(amount, now)?;
                payments.record(step.map(|step| step.traced(traceparent)));
            }
            Action::Stop => {
                let Some(payment) = payments.get_mut(id) else { return Ok(()) };
                let step = payment.stop(now);
                if payment.may_be_captured() && !self.ended.contains(&id) {
                    self.ended.push(id);
                }
                payments.record(step);
            }
        }
        Ok(())
    }

    /// Returns the attempts that can be taken over. While the breaker is open, those are the charges of nothing.
    fn to_take_over(&self, payments: &mut WorkingSet, is_breaker_closed: bool) -> Vec<AttemptKey> {
        let mut is_free =
            |key: &AttemptKey| payments.get_mut(key.payment_id).is_some_and(|payment| payment.amount.minor_units == 0);
        self.requested.iter().filter(|key| is_breaker_closed || is_free(key)).copied().collect()
    }

    /// Takes over these attempts, in order, while permits are free; the others stay queued. To be called when all
    /// requests are applied.
    fn take_over(
        &mut self,
        payments: &mut WorkingSet,
        requested: &[AttemptKey],
        permits: &Permits,
        (now, lease_until): (Timestamp, Timestamp),
    ) {
        let Some(mut free) = permits.try_acquire_up_to(requested.len()) else { return };
        for key in requested {
            if free.num_permits() == 0 {
                return;
            }
            let payment = payments.get_mut(key.payment_id);
            let begun = payment.and_then(|payment| payment.begin_charge(key.attempt, lease_until, now));
            if let Some((charge, step)) = begun {
                payments.record(step);
                let permit = free.split(1).expect("a permit is left");
                self.taken_over.push((charge, permit));
            }
        }
    }
}
