//! Consumes the ends of orders: a fulfilled order uses its coupon, any other end returns it.

use crate::{messages, usecase::follow_orders};
use sqlx::MySqlConnection;
use stampede_inbox::{Boxed, HandleError, Handler, Message};
use stampede_service::decode;
use stampede_vocab::Timestamp;

/// Applies the messages of the order topic.
pub struct Consumer;

impl Handler for Consumer {
    type Effects = ();

    fn apply<'c>(&'c self, conn: &'c mut MySqlConnection, batch: &'c [Message]) -> Boxed<'c, Result<(), HandleError>> {
        Box::pin(async move {
            let decoded = decode(batch, |message| messages::decode(&message.message_type, &message.payload))?;
            let (indexes, ended): (Vec<usize>, Vec<_>) = decoded.into_iter().unzip();
            match follow_orders(conn, &ended, Timestamp::now()).await?.into_iter().next() {
                Some((position, error)) => Err(HandleError::of_row(indexes[position], error)),
                None => Ok(()),
            }
        })
    }

    fn committed(&self, (): ()) -> Boxed<'_, ()> {
        Box::pin(async {})
    }
}
