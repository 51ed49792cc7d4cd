//! Reads payments: a buyer their own, an operator everybody's.

use super::Error;
use crate::{
    domain::Payment,
    store::{
        Reading,
        payments::{self, Found},
    },
};
use stampede_db::Database;
use stampede_service::{Page, Paging};
use stampede_vocab::{OrderId, PaymentId, UserId};

/// Reads payments. Cheap to clone.
#[derive(Clone)]
pub struct FindPayments {
    db: Database,
}

impl FindPayments {
    /// Reads payments of this schema.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Returns one payment, if the caller may see it: `owner` is `None` for one who may see everybody's.
    pub async fn get(&self, id: PaymentId, owner: Option<UserId>) -> Result<Payment, Error> {
        let found: Vec<Found> = self
            .db
            .run("find_payment", |mut conn| async move { payments::load(&mut conn, &[id], Reading::Plain).await })
            .await?;
        let payment = found.into_iter().next().ok_or(Error::NotFound)?.map_err(|odd| odd.error)?;
        let is_visible = owner.is_none_or(|owner| owner == payment.user_id);
        if is_visible { Ok(payment) } else { Err(Error::NotFound) }
    }

    /// Returns the payment of one order, if the caller may see one, as the only page of a list.
    pub async fn list_of_order(&self, order: OrderId, owner: Option<UserId>) -> Result<Page<Payment>, Error> {
        let rows = match self.get(PaymentId::derive(order), owner).await {
            Ok(payment) => vec![payment],
            Err(Error::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Page { rows, next_page_token: String::new() })
    }

    /// Returns a page of all that the caller may see, newest first. One that cannot be read is left out, and logged.
    pub async fn list(&self, owner: Option<UserId>, paging: Paging) -> Result<Page<Payment>, Error> {
        let (after, limit) = (paging.after_time(), paging.limit());
        let found = self
            .db
            .run("list_payments", |mut conn| async move { payments::list(&mut conn, owner, after, limit).await })
            .await?;
        let place = |row: &Found| match row {
            Ok(payment) => (payment.created_at.micros(), payment.id.uuid()),
            Err(odd) => (odd.created_at.micros(), odd.id.uuid()),
        };
        // Only then, or a row that is left out would look like the end of the list.
        let Page { rows, next_page_token } = paging.cut(found, place);
        Ok(Page { rows: rows.into_iter().filter_map(readable).collect(), next_page_token })
    }
}

fn readable(row: Found) -> Option<Payment> {
    row.inspect_err(|odd| tracing::error!(payment.id = %odd.id, error.cause = %odd.error, "a payment cannot be read"))
        .ok()
}
