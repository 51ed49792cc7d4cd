//! Reads the stock of each item, once or as a stream of changes.

use super::{COMPARED_AFTER_CLOSING, Error, Reconcile, unreadable::readable};
use crate::{
    domain::{Item, StockLevel, StockView},
    store::{self, stock::StoredItems},
};
use futures_util::{Stream, future::join_all};
use stampede_db::{Database, DbError};
use stampede_lua::stock::{Snapshot, Stock};
use stampede_service::until_last;
use stampede_vocab::{EventId, ItemId, Timestamp};
use stampede_watch::Hub;
use std::{collections::HashMap, time::Duration};

/// How long before its opening an event counts as on sale, for the gauges.
const SOON: Duration = Duration::from_secs(3_600);

/// Reads the stock. Cheap to clone.
#[derive(Clone)]
pub struct ViewStock {
    reader: Reader,
    hub: Hub<EventId, StockView>,
}

#[derive(Clone)]
struct Reader {
    db: Database,
    redis: Stock,
    /// Compares events that are found not to be ready.
    reconcile: Reconcile,
}

impl ViewStock {
    /// Returns the use case on this schema and this Redis, with this poll interval for watchers. Needs a tokio runtime.
    pub fn new(db: Database, redis: Stock, reconcile: Reconcile, period: Duration) -> Self {
        let reader = Reader { db, redis, reconcile };
        let watched = reader.clone();
        let hub = Hub::new(period, move |events| watched.clone().ready_views(events));
        Self { reader, hub }
    }

    /// Returns the items of all events that are on sale or will be within the hour, grouped by event. Leaves out and
    /// logs an event with an unreadable row.
    pub async fn on_sale(&self) -> Result<Vec<Item>, DbError> {
        let now = Timestamp::now();
        let read = self.reader.db.run("items_on_sale", |mut conn| async move {
            store::stock::on_sale(&mut conn, now, now.plus(SOON)).await
        });
        let read: Vec<(EventId, StoredItems)> = read.await?;
        Ok(read.into_iter().filter_map(readable).flatten().collect())
    }

    /// Returns the held units of those of these items that are staged. Reads one event after the other: a gauge must
    /// not take connections from reservations.
    pub async fn held_units(&self, items: &[Item]) -> Result<u64, Error> {
        let mut held = 0;
        for items in items.chunk_by(|one, next| one.event_id == next.event_id) {
            let levels = self.reader.view(items).await?.map(|view| view.levels).unwrap_or_default();
            held += levels.iter().map(|level| u64::from(level.held_units.unsigned_abs())).sum::<u64>();
        }
        Ok(held)
    }

    pub async fn run(&self, event: EventId) -> Result<StockView, Error> {
        let items = self.reader.items_of(event).await?;
        self.reader.view(&items).await?.ok_or(Error::NotReady(event))
    }

    /// Returns the stock of the event now, and after each change, until the event has closed.
    pub async fn watch(&self, event: EventId) -> Result<impl Stream<Item = StockView> + Send + use<>, Error> {
        self.reader.items_of(event).await?;
        Ok(until_last(Box::pin(self.hub.watch(event)), |view| view.closed))
    }
}

impl Reader {
    async fn items_of(&self, event: EventId) -> Result<Vec<Item>, Error> {
        let items = self.reconcile.items_of(event).await?;
        if items.is_empty() { Err(Error::EventNotFound(event)) } else { Ok(items) }
    }

    /// Returns the views of those of these events that are staged. Leaves out those that fail.
    async fn ready_views(self, events: Vec<EventId>) -> anyhow::Result<HashMap<EventId, StockView>> {
        let items = self.reconcile.items_of_each(&events).await?;
        let views = join_all(items.into_iter().map(|items| self.ready_view(items))).await;
        Ok(views.into_iter().flatten().collect())
    }

    /// Returns the view of the event of these items; `None` if it is not staged or, which is logged, fails.
    async fn ready_view(&self, items: Vec<Item>) -> Option<(EventId, StockView)> {
        let event = items.first()?.event_id;
        match self.view(&items).await {
            Ok(view) => view.map(|view| (event, view)),
            Err(error) => {
                tracing::warn!(event.id = %event, error.cause = %error, "the stock of a watched event could not be read");
                None
            }
        }
    }

    /// Returns the view of the event of these items; `None` while it is not staged.
    async fn view(&self, items: &[Item]) -> Result<Option<StockView>, Error> {
        let Some(first) = items.first() else { return Ok(None) };
        if is_forgotten(first, Timestamp::now()) {
            return Ok(Some(StockView { closed: true, levels: items.iter().map(StockLevel::of_ledger).collect() }));
        }
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let snapshot = self.redis.snapshot(first.event_id, &ids).await?;
        let view = staged_view(items, &snapshot);
        if view.is_none() {
            // The reconciler does not compare an inactive event without a request.
            self.reconcile.request_recheck(first.event_id);
        }
        Ok(view)
    }
}

/// Returns whether the item is no longer compared: nothing can be on hold any more, and the ledger alone is shown.
fn is_forgotten(item: &Item, now: Timestamp) -> bool {
    now >= item.window.close_time.plus(COMPARED_AFTER_CLOSING)
}

fn staged_view(items: &[Item], snapshot: &Snapshot) -> Option<StockView> {
    let closed = snapshot.now >= snapshot.event.filter(|event| event.is_compared)?.close_time;
    let level = |(item, staged): (&Item, &Option<stampede_lua::stock::ShelfItem>)| {
        let staged = staged.as_ref()?;
        Some(StockLevel {
            item_id: item.id(),
            total_units: staged.total_units,
            left_units: staged.left_units(),
            committed_units: staged.committed_units,
            held_units: staged.held_units,
            left_gift_units: staged.left_gift_units(),
        })
    };
    let levels = items.iter().zip(&snapshot.items).map(level).collect::<Option<Vec<_>>>()?;
    Some(StockView { closed, levels })
}
