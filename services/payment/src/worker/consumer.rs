//! Consumes the messages of the order service.

use crate::{
    usecase::{FollowError, Followed, Payments},
    wire,
    worker::{Charges, pool},
};
use futures_util::future::BoxFuture;
use sqlx::MySqlConnection;
use stampede_inbox::{HandleError, Handler, Message};

/// The handler of the topic `<prefix>.order`.
pub struct Orders {
    payments: Payments,
}

impl Orders {
    /// Applies messages to these payments.
    pub fn new(payments: Payments) -> Self {
        Self { payments }
    }
}

impl Handler for Orders {
    type Effects = Followed;

    fn apply<'c>(
        &'c self,
        transaction: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> BoxFuture<'c, Result<Followed, HandleError>> {
        Box::pin(async move {
            let mut news = Vec::with_capacity(batch.len());
            for (index, message) in batch.iter().enumerate() {
                let unreadable = |error: wire::Unreadable| HandleError::Poison { index, detail: error.to_string() };
                news.extend(wire::decode(message).map_err(unreadable)?.map(|told| (index, told)));
            }
            Ok(self.payments.follow_orders(transaction, news).await?)
        })
    }

    /// What was taken over is begun here and now, each by the hand that was kept for it: nothing is queued in between,
    /// and the charge pool waits for those hands before it ends.
    fn committed(&self, effects: Followed) -> BoxFuture<'_, ()> {
        let charges = Charges(self.payments.clone());
        for (order, hand) in self.payments.followed(effects) {
            pool::begin(&charges, order, hand);
        }
        Box::pin(std::future::ready(()))
    }
}

impl From<FollowError> for HandleError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Db(error) => Self::Db(error),
            FollowError::Refused { index, refusal } => Self::Poison { index, detail: refusal.to_string() },
        }
    }
}
