//! Shows payments: a buyer their own, an operator everybody's.

use crate::{
    domain::{Failure, Payment},
    store::{Reading, payments},
    usecase::Payments,
};
use stampede_vocab::{OrderId, PageSize, PaymentId, Timestamp, UserId};

/// Who looks, and so what there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Sees only what is their own.
    Buyer(UserId),
    /// Sees everything.
    Operator,
}

impl Viewer {
    fn may_see(self, payment: &Payment) -> bool {
        match self {
            Self::Buyer(user_id) => payment.user_id == user_id,
            Self::Operator => true,
        }
    }
}

/// A page of payments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub payments: Vec<Payment>,
    /// Whether there are more behind it.
    pub more: bool,
}

impl Payments {
    /// One payment. One that the viewer may not see is not found.
    pub async fn get(&self, viewer: Viewer, id: PaymentId) -> Result<Payment, Failure> {
        let mut connection = self.desk.db.acquire().await?;
        let found = payments::load(&mut connection, &[id], Reading::Plain).await?;
        found.into_iter().find(|payment| viewer.may_see(payment)).ok_or(Failure::NotFound)
    }

    /// The payment of one order, if the viewer may see one.
    pub async fn list_of_order(&self, viewer: Viewer, order_id: OrderId) -> Result<Page, Failure> {
        let payments = match self.get(viewer, PaymentId::derive(order_id)).await {
            Ok(payment) => vec![payment],
            Err(Failure::NotFound) => Vec::new(),
            Err(failure) => return Err(failure),
        };
        Ok(Page { payments, more: false })
    }

    /// A page of all that the viewer may see, newest first.
    pub async fn list(
        &self,
        viewer: Viewer,
        after: Option<(Timestamp, PaymentId)>,
        size: PageSize,
    ) -> Result<Page, Failure> {
        let user = match viewer {
            Viewer::Buyer(user_id) => Some(user_id),
            Viewer::Operator => None,
        };
        let mut connection = self.desk.db.acquire().await?;
        let mut payments = payments::list(&mut connection, user, after, size.get() + 1).await?;
        let more = payments.len() > size.get() as usize;
        payments.truncate(size.get() as usize);
        Ok(Page { payments, more })
    }
}
