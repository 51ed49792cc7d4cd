//! Takes in what the order service tells: queues charges and refunds, and stops what an ended order no longer needs.
//! Nothing is charged here; the workers do that once this has been committed.
//!
//! Where a hand of the charge pool is free, an attempt is not queued but taken over: it is written as CHARGING, with a
//! lease, by the transaction that takes its message in, so that it needs no claim of its own. If this process dies
//! before it charges, the reconciler finds the attempt when the lease has ended, like that of any claim.

use crate::{
    domain::{Ask, AttemptKey, ChargeOrder, OrderNews, Outgoing, Payment, Refund, Refusal},
    store::{self, WorkingSet},
    usecase::{Hands, Payments},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{PaymentId, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

/// Why a batch was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// One message can never be applied.
    #[error("{refusal}")]
    Refused {
        /// Place of the message in its batch.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
}

/// An attempt that is this process's to charge, and the hand that was kept free for it.
pub type TakenOver = (ChargeOrder, OwnedSemaphorePermit);

/// What a batch has left to do once it is committed. If it is rolled back this is dropped, and its hands are free.
#[derive(Debug, Default)]
pub struct Followed {
    /// Attempts that were asked for, whether they were taken over or not.
    requested: Vec<AttemptKey>,
    taken_over: Vec<TakenOver>,
    refunds: Vec<Refund>,
    told: Vec<Outgoing>,
}

impl Payments {
    /// Applies news in their order, inside the transaction that records them. Each comes with its place in the batch.
    /// What is taken over is decided anew in each run of the transaction, from the hands that are free then.
    pub async fn follow_orders(
        &self,
        tx: &mut MySqlConnection,
        news: Vec<(usize, OrderNews)>,
    ) -> Result<Followed, FollowError> {
        let now = self.desk.clock.now();
        let ids = news.iter().map(|(_, news)| PaymentId::derive(news.order_id));
        let mut payments = WorkingSet::lock(tx, ids).await?;
        let mut followed = Followed::default();
        for (index, news) in news {
            let refused = |refusal| FollowError::Refused { index, refusal };
            followed.apply(&mut payments, news, now).map_err(refused)?;
        }
        followed.take_over(&mut payments, &self.charging, now.plus(self.lease), now);
        payments.save(tx).await?;
        store::refunds::insert(tx, &followed.refunds).await?;
        store::outbox::append(tx, &followed.told).await?;
        Ok(followed)
    }

    /// Wakes whoever has work now, and yields what was taken over: each is to be charged by its hand at once. To be
    /// called after the commit.
    #[must_use]
    pub fn followed(&self, followed: Followed) -> Vec<TakenOver> {
        let Followed { requested, taken_over, refunds, told } = followed;
        if taken_over.len() < requested.len() {
            self.desk.charges_wanted.notify_one();
        }
        if !refunds.is_empty() {
            self.desk.refunds_wanted.notify_one();
        }
        if !told.is_empty() {
            self.desk.outbox.wake();
        }
        taken_over
    }
}

impl Followed {
    fn apply(&mut self, payments: &mut WorkingSet, news: OrderNews, now: Timestamp) -> Result<(), Refusal> {
        let OrderNews { order_id, ask, traceparent } = news;
        let id = PaymentId::derive(order_id);
        match ask {
            Ask::Charge { user_id, attempt, amount, payment_method } => {
                let payment = payments.get_or_insert_with(id, || Payment::open(order_id, user_id, amount, now));
                payment.request_charge(attempt, amount, payment_method, traceparent, now)?;
                self.requested.push(AttemptKey { payment_id: id, attempt });
            }
            Ask::Refund { amount } => {
                let payment = payments.get_mut(id).ok_or(Refusal::NothingCaptured(order_id))?;
                let refund = payment.request_refund(amount, now)?;
                self.refunds.extend(refund.map(|refund| Refund { traceparent, ..refund }));
            }
            Ask::Stop => self.told.extend(payments.get_mut(id).and_then(|payment| payment.stop(now))),
        }
        Ok(())
    }

    /// Takes over as many of the requested attempts as hands are free, in their order; the others stay queued. To be
    /// called when all news are applied: an attempt whose order ends in the same batch is stopped, and not charged.
    fn take_over(&mut self, payments: &mut WorkingSet, hands: &Hands, lease_until: Timestamp, now: Timestamp) {
        let Some(mut free) = hands.try_take(self.requested.len()) else { return };
        for key in &self.requested {
            if free.num_permits() == 0 {
                return;
            }
            let payment = payments.get_mut(key.payment_id);
            if let Some(order) = payment.and_then(|payment| payment.begin_charge(key.attempt, lease_until, now)) {
                let hand = free.split(1).expect("a hand is left");
                self.taken_over.push((order, hand));
            }
        }
    }
}
