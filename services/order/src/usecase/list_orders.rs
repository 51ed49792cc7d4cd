//! Lists orders, a page at a time. Where a filter passes over orders, a page looks at so many and no more: it may be
//! short, and the next one goes on behind what was looked at.

use super::{Error, readable};
use crate::{
    domain::{Order, OrderFilter},
    store::{
        Stored,
        lists::{self, Along, Picked, Place, Stretch},
    },
};
use stampede_db::{Database, DbError};
use stampede_service::{Page, Paging};
use stampede_vocab::{EventId, UserId};

/// Which list of orders, and its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// The orders of a buyer, newest first.
    OfBuyer {
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
    fn position(&self, order: &Stored) -> Place {
        let sorted_by = match self {
            Self::OfBuyer { .. } | Self::All => order.created_at.micros(),
            Self::OfEvent(_) => order.arrival,
        };
        (sorted_by, order.id.uuid())
    }

    fn along(&self) -> Along {
        match *self {
            Self::OfBuyer { buyer, .. } => Along::Buyer(buyer),
            Self::OfEvent(event) => Along::Event(event),
            Self::All => Along::Created,
        }
    }

    /// The event that is picked out of a list of all.
    fn picked_event(&self) -> Option<EventId> {
        match *self {
            Self::OfBuyer { event, .. } => event,
            Self::OfEvent(_) | Self::All => None,
        }
    }

    /// Whether orders of the list are passed over that are not wanted: those that its index does not distinguish.
    fn passes_over(&self, filter: &OrderFilter) -> bool {
        let by_time = matches!(self, Self::OfEvent(_)) && (filter.from.is_some() || filter.until.is_some());
        by_time || self.picked_event().is_some() || !filter.states.is_empty()
    }
}

/// Lists orders. Cheap to clone.
#[derive(Clone)]
pub struct ListOrders {
    db: Database,
    most_looked_at: u32,
}

impl ListOrders {
    /// Lists orders of this schema. A page for which orders are passed over looks at so many at most.
    pub fn new(db: Database, most_looked_at: u32) -> Self {
        Self { db, most_looked_at }
    }

    /// Returns a page of those of the list that the filter takes, without the orders that cannot be read. It may be
    /// short, or empty, while it has the token of the next one.
    pub async fn run(&self, listing: Listing, filter: &OrderFilter, paging: Paging) -> Result<Page<Order>, Error> {
        let (after, limit) = (paging.after(), paging.limit());
        let (along, picked) = (listing.along(), Picked { event: listing.picked_event(), filter });
        let most = Some(self.most_looked_at).filter(|_| listing.passes_over(filter));
        let read = self.db.run("list_orders", |mut conn| async move {
            let last = match most {
                Some(most) => lists::last_of_stretch(&mut conn, along, filter, after, most).await?,
                None => None,
            };
            let orders = lists::page(&mut conn, along, picked, Stretch { after, last }, limit).await?;
            Ok::<_, DbError>((orders, last))
        });
        let (orders, last) = read.await?;
        // Cut with those that cannot be read, or a page that has one would look like the last.
        let Page { rows, next_page_token } = paging.cut_at(orders, last, |order| listing.position(order));
        let rows = rows.into_iter().filter_map(|stored| readable(stored.id, stored.order)).collect();
        Ok(Page { rows, next_page_token })
    }
}
