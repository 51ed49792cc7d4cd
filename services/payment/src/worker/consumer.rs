//! Consumes the requests of the order service.

use crate::{
    domain::{Action, OrderRequest},
    messages,
    usecase::{ChargeAttempts, FollowError, FollowOrders, Followed},
    worker::pool,
};
use sqlx::MySqlConnection;
use stampede_inbox::{Boxed, HandleError, Handler, Message};
use stampede_service::decode;
use stampede_vocab::OrderId;

/// Applies the messages of the order topic.
pub struct Consumer {
    follow: FollowOrders,
    charge: ChargeAttempts,
}

impl Consumer {
    /// Follows orders, and begins the charges that were taken over.
    pub fn new(follow: FollowOrders, charge: ChargeAttempts) -> Self {
        Self { follow, charge }
    }
}

impl Handler for Consumer {
    type Effects = Followed;

    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Followed, HandleError>> {
        Box::pin(async move { Ok(self.follow.apply(conn, requests(batch)?).await?) })
    }

    /// Begins the charges that were taken over, each with its permit, on a task of its own. The charge pool waits for
    /// these permits before it stops.
    fn committed(&self, followed: Followed) -> Boxed<'_, ()> {
        for (charge, permit) in self.follow.committed(followed) {
            pool::begin(&self.charge, charge, permit);
        }
        Box::pin(std::future::ready(()))
    }
}

/// Decodes the requests of a batch, each with its index and the trace in which it was made.
fn requests(batch: &[Message]) -> Result<Vec<(usize, OrderRequest)>, HandleError> {
    let decoded = decode(batch, |message| messages::decode(&message.message_type, &message.payload))?;
    let request = |(index, (order_id, action)): (usize, (OrderId, Action))| {
        (index, OrderRequest { order_id, action, traceparent: batch[index].traceparent.clone() })
    };
    Ok(decoded.into_iter().map(request).collect())
}

impl From<FollowError> for HandleError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Db(error) => Self::Db(error),
            FollowError::Refused { index, refusal } => Self::Poison { index, detail: refusal.to_string() },
            FollowError::Unreadable { index, error } => Self::of_row(index, error),
        }
    }
}
