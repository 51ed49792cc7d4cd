//! Lists orders, a page at a time. A page with a filter scans a bounded number of orders: it may be short, and the next
//! page continues after the scanned ones.

use super::{Error, readable};
use crate::{
    domain::{Order, OrderFilter},
    store::{
        Stored,
        lists::{self, Conditions, KeyRange, ListIndex, Position},
    },
};
use stampede_db::{Database, DbError};
use stampede_service::{Page, Paging};
use stampede_vocab::{EventId, UserId};

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
    /// All orders, newest first.
    All,
}

impl Listing {
    /// Returns the name of the list with its filter. Page tokens carry it.
    pub fn name(&self, filter: &OrderFilter) -> String {
        match self {
            Self::OfBuyer { buyer, event: None } => format!("orders-{buyer}{filter}"),
            Self::OfBuyer { buyer, event: Some(event) } => format!("orders-{buyer}-{event}{filter}"),
            Self::OfEvent(event) => format!("orders-{event}{filter}"),
            Self::All => format!("orders{filter}"),
        }
    }

    /// Returns the position of an order in the list.
    fn position(&self, order: &Stored) -> Position {
        let sort_value = match self {
            Self::OfBuyer { .. } | Self::All => order.created_at.micros(),
            Self::OfEvent(_) => order.arrival,
        };
        (sort_value, order.id.uuid())
    }

    fn index(&self) -> ListIndex {
        match *self {
            Self::OfBuyer { buyer, .. } => ListIndex::Buyer(buyer),
            Self::OfEvent(event) => ListIndex::Event(event),
            Self::All => ListIndex::Created,
        }
    }

    /// Returns the event to filter by; `None` if the index or nothing selects it.
    fn filtered_event(&self) -> Option<EventId> {
        match *self {
            Self::OfBuyer { event, .. } => event,
            Self::OfEvent(_) | Self::All => None,
        }
    }

    /// Returns whether the filter rejects rows that the index does not exclude.
    fn scans_rejected(&self, filter: &OrderFilter) -> bool {
        let by_time = matches!(self, Self::OfEvent(_)) && (filter.from.is_some() || filter.until.is_some());
        by_time || self.filtered_event().is_some() || !filter.states.is_empty()
    }
}

/// Lists orders. Cheap to clone.
#[derive(Clone)]
pub struct ListOrders {
    db: Database,
    max_scanned: u32,
}

impl ListOrders {
    /// Lists orders of this schema. A filtered page scans at most `max_scanned` orders.
    pub fn new(db: Database, max_scanned: u32) -> Self {
        Self { db, max_scanned }
    }

    /// Returns a page of the orders that match, without those that cannot be read. It may be short or even empty and
    /// still have a next page token.
    pub async fn run(&self, listing: Listing, filter: &OrderFilter, paging: Paging) -> Result<Page<Order>, Error> {
        let (after, limit) = (paging.after(), paging.limit());
        let (index, conditions) = (listing.index(), Conditions { event: listing.filtered_event(), filter });
        let max = Some(self.max_scanned).filter(|_| listing.scans_rejected(filter));
        let read = self.db.run("list_orders", |mut conn| async move {
            let last = match max {
                Some(max) => lists::end_of_range(&mut conn, index, filter, after, max).await?,
                None => None,
            };
            let orders = lists::page(&mut conn, index, conditions, KeyRange { after, last }, limit).await?;
            Ok::<_, DbError>((orders, last))
        });
        let (orders, last) = read.await?;
        // Cut before the unreadable ones are dropped, or the page would look like the last.
        let Page { rows, next_page_token } = paging.cut_at(orders, last, |order| listing.position(order));
        let rows = rows.into_iter().filter_map(|stored| readable(stored.id, stored.order)).collect();
        Ok(Page { rows, next_page_token })
    }
}
