//! Reads payments: buyers their own, operators all.

use super::Error;
use crate::{
    domain::Payment,
    store::{
        ReadMode,
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
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Returns one payment, if the caller may see it: `owner` is `None` for a caller who may see every payment.
    pub async fn get(&self, id: PaymentId, owner: Option<UserId>) -> Result<Payment, Error> {
        let found: Vec<Found> = self
            .db
            .run("find_payment", |mut conn| async move { payments::load(&mut conn, &[id], ReadMode::Plain).await })
            .await?;
        let payment = found.into_iter().next().ok_or(Error::NotFound)?.map_err(|unreadable| unreadable.error)?;
        let is_visible = owner.is_none_or(|owner| owner == payment.user_id);
        if is_visible { Ok(payment) } else { Err(Error::NotFound) }
    }

    /// Returns the only page of a list by order: its payment, if there is one that the caller may see.
    pub async fn list_of_order(&self, order: OrderId, owner: Option<UserId>) -> Result<Page<Payment>, Error> {
        let rows = match self.get(PaymentId::derive(order), owner).await {
            Ok(payment) => vec![payment],
            Err(Error::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Page { rows, next_page_token: String::new() })
    }

    /// Returns a page of the payments that the caller may see, newest first. Unreadable ones are logged and left out.
    pub async fn list(&self, owner: Option<UserId>, paging: Paging) -> Result<Page<Payment>, Error> {
        let (after, limit) = (paging.after_time(), paging.limit());
        let found = self
            .db
            .run("list_payments", |mut conn| async move { payments::list(&mut conn, owner, after, limit).await })
            .await?;
        let place = |row: &Found| match row {
            Ok(payment) => (payment.created_at.micros(), payment.id.uuid()),
            Err(unreadable) => (unreadable.created_at.micros(), unreadable.id.uuid()),
        };
        // Cut before the unreadable rows are dropped, or the page would look like the last.
        let Page { rows, next_page_token } = paging.cut(found, place);
        Ok(Page { rows: rows.into_iter().filter_map(readable).collect(), next_page_token })
    }
}

fn readable(row: Found) -> Option<Payment> {
    if let Err(unreadable) = &row {
        let (id, error) = (unreadable.id, &unreadable.error);
        tracing::error!(payment.id = %id, error.cause = %error, "a payment cannot be read");
    }
    row.ok()
}
