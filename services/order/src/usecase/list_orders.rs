//! Lists orders, a page at a time.

use super::{Error, readable};
use crate::{
    domain::{Order, OrderFilter},
    store::{Stored, lists},
};
use stampede_db::Database;
use stampede_service::{Page, Paging};
use stampede_vocab::{EventId, UserId};
use uuid::Uuid;

/// Which list of orders, and its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// The orders of a buyer, newest first.
    OfBuyer {
        /// Buyer.
        buyer: UserId,
        /// Only those of this event.
        event: Option<EventId>,
    },
    /// All orders of an event, in their order of arrival.
    OfEvent(EventId),
    /// Everybody's, newest first.
    All,
}

impl Listing {
    /// Name of the list and its filter, which its page tokens carry.
    pub fn name(&self, filter: &OrderFilter) -> String {
        match self {
            Self::OfBuyer { buyer, event: None } => format!("orders-{buyer}{filter}"),
            Self::OfBuyer { buyer, event: Some(event) } => format!("orders-{buyer}-{event}{filter}"),
            Self::OfEvent(event) => format!("orders-{event}{filter}"),
            Self::All => format!("orders{filter}"),
        }
    }

    /// Returns the sort value and the id of an order in the list.
    fn position(&self, order: &Stored) -> (i64, Uuid) {
        let sorted_by = match self {
            Self::OfBuyer { .. } | Self::All => order.created_at.micros(),
            Self::OfEvent(_) => order.arrival,
        };
        (sorted_by, order.id.uuid())
    }
}

/// Lists orders. Cheap to clone.
#[derive(Clone)]
pub struct ListOrders {
    db: Database,
}

impl ListOrders {
    /// Lists orders of this schema.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Returns a page of those of the list that the filter takes, without the orders that cannot be read.
    pub async fn run(&self, listing: Listing, filter: &OrderFilter, paging: Paging) -> Result<Page<Order>, Error> {
        let (after, limit) = (paging.after(), paging.limit());
        let read = self.db.run("list_orders", |mut conn| async move {
            match listing {
                Listing::OfBuyer { buyer, event } => {
                    lists::of_buyer(&mut conn, buyer, event, filter, after, limit).await
                }
                Listing::OfEvent(event) => lists::of_event(&mut conn, event, filter, after, limit).await,
                Listing::All => lists::all(&mut conn, filter, after, limit).await,
            }
        });
        // Cut with those that cannot be read, or a page that has one would look like the last.
        let Page { rows, next_page_token } = paging.cut(read.await?, |order| listing.position(order));
        let rows = rows.into_iter().filter_map(|stored| readable(stored.id, stored.order)).collect();
        Ok(Page { rows, next_page_token })
    }
}
