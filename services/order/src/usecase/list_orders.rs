//! Lists orders, a page at a time.

use super::Failure;
use crate::{domain::Order, store::lists};
use stampede_db::{Database, DbError};
use stampede_vocab::{EventId, PageSize, PageToken, UserId};

/// Which orders, and in which sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// A buyer's own, newest first.
    OfBuyer {
        /// Whose.
        buyer: UserId,
        /// Only those of this event.
        event: Option<EventId>,
    },
    /// All of an event, as they arrived.
    OfEvent(EventId),
}

impl Listing {
    /// Name of the list and its filter, which its page tokens carry.
    pub fn name(&self) -> String {
        match self {
            Self::OfBuyer { buyer, event: None } => format!("orders-{buyer}"),
            Self::OfBuyer { buyer, event: Some(event) } => format!("orders-{buyer}-{event}"),
            Self::OfEvent(event) => format!("orders-{event}"),
        }
    }

    /// The token of the page that starts after this order.
    fn token_after(&self, order: &Order) -> PageToken {
        let after = match self {
            Self::OfBuyer { .. } => order.created_at.micros(),
            Self::OfEvent(_) => order.arrival,
        };
        PageToken::new(self.name(), after, order.id.uuid())
    }
}

/// Some orders, and where the next ones start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The orders.
    pub orders: Vec<Order>,
    /// Token of the next page; `None` on the last.
    pub next: Option<PageToken>,
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

    /// The page after the token, or the first one.
    pub async fn run(&self, listing: Listing, after: Option<PageToken>, size: PageSize) -> Result<Page, Failure> {
        // One more than asked for tells whether there is a next page.
        let mut orders = self.read(listing, after.as_ref(), size.get() + 1).await?;
        let more = orders.len() > size.get() as usize;
        orders.truncate(size.get() as usize);
        let next = orders.last().filter(|_| more).map(|order| listing.token_after(order));
        Ok(Page { orders, next })
    }

    async fn read(&self, listing: Listing, after: Option<&PageToken>, limit: u32) -> Result<Vec<Order>, DbError> {
        let mut connection = self.db.acquire().await?;
        match listing {
            Listing::OfBuyer { buyer, event } => lists::of_buyer(&mut connection, buyer, event, after, limit).await,
            Listing::OfEvent(event) => lists::of_event(&mut connection, event, after, limit).await,
        }
    }
}
