//! Takes in what the order service tells: queues charges and refunds, and stops what an ended order no longer needs.
//! Nothing is charged here; the workers do that once this has been committed.

use crate::{
    domain::{Ask, OrderNews, Outgoing, Payment, Refund, Refusal},
    store::{self, WorkingSet},
    usecase::Payments,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{PaymentId, Timestamp};

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

/// What a batch has left to do once it is committed.
#[derive(Debug, Default)]
pub struct Followed {
    charges: bool,
    refunds: Vec<Refund>,
    told: Vec<Outgoing>,
}

impl Payments {
    /// Applies news in their order, inside the transaction that records them. Each comes with its place in the batch.
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
        payments.save(tx).await?;
        store::refunds::insert(tx, &followed.refunds).await?;
        store::outbox::append(tx, &followed.told).await?;
        Ok(followed)
    }

    /// Wakes whoever has work now. To be called after the commit.
    pub fn followed(&self, followed: &Followed) {
        if followed.charges {
            self.desk.charges_wanted.notify_one();
        }
        if !followed.refunds.is_empty() {
            self.desk.refunds_wanted.notify_one();
        }
        if !followed.told.is_empty() {
            self.desk.outbox.wake();
        }
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
                self.charges = true;
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
}
