//! What is left of each item: shown once, or as it changes.

use crate::{
    domain::{Item, StockLevel, StockView},
    store,
    usecase::{Inventory, InventoryError, KEPT_AFTER_CLOSING},
};
use futures_util::{Stream, StreamExt, future::try_join_all, stream};
use stampede_db::Database;
use stampede_lua::stock::{Peek, Stock};
use stampede_vocab::{EventId, ItemId, SharedClock, Timestamp};
use std::{collections::HashMap, time::Duration};

/// Reads what is shown.
#[derive(Clone)]
pub(super) struct Viewer {
    pub db: Database,
    pub redis: Stock,
    pub clock: SharedClock,
}

/// How long before its opening an event counts as on sale, for the gauges.
const SOON: Duration = Duration::from_secs(3_600);

/// Units of all events that are on sale, or will be soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnSale {
    /// Units there are.
    pub total: u64,
    /// Units in the ledger.
    pub committed: u64,
}

impl Inventory {
    /// Units of all events that are on sale or will be within the hour, by the ledger.
    pub async fn units_on_sale(&self) -> Result<OnSale, InventoryError> {
        let now = self.clock.now();
        let connection = &mut *self.db.acquire().await?;
        let (total, committed) = store::stock::units_on_sale(connection, now, now.plus(SOON)).await?;
        Ok(OnSale { total, committed })
    }

    /// What is left of each item of the event now.
    pub async fn view(&self, event: EventId) -> Result<StockView, InventoryError> {
        let items = self.items_of(event).await?;
        let viewer = Viewer { db: self.db.clone(), redis: self.redis.clone(), clock: self.clock.clone() };
        viewer.view(&items).await?.ok_or(InventoryError::NotReady(event))
    }

    /// What is left of each item as it is now, and again when it changes, until the event has closed.
    pub async fn watch(&self, event: EventId) -> Result<impl Stream<Item = StockView> + Send + use<>, InventoryError> {
        self.items_of(event).await?;
        let views = Box::pin(self.hub.watch(event));
        Ok(stream::unfold(Some(views), |views| async move {
            let mut views = views?;
            let view = views.next().await?;
            let rest = (!view.closed).then_some(views);
            Some((view, rest))
        }))
    }

    async fn items_of(&self, event: EventId) -> Result<Vec<Item>, InventoryError> {
        let items = store::stock::of_events(&mut *self.db.acquire().await?, &[event]).await?;
        if items.is_empty() { Err(InventoryError::EventNotFound(event)) } else { Ok(items) }
    }
}

impl Viewer {
    /// The views of those of these events that are staged.
    pub(super) async fn ready_views(self, events: Vec<EventId>) -> anyhow::Result<HashMap<EventId, StockView>> {
        let items = store::stock::of_events(&mut *self.db.acquire().await?, &events).await?;
        let by_event = items.chunk_by(|one, next| one.event_id == next.event_id);
        let views = by_event.map(|items| async { Ok((items[0].event_id, self.view(items).await?)) });
        let views: Vec<_> = try_join_all(views).await.map_err(|error: InventoryError| anyhow::anyhow!(error))?;
        Ok(views.into_iter().filter_map(|(event, view)| Some((event, view?))).collect())
    }

    /// The view of one event, of which these are the items; `None` while it is not staged.
    async fn view(&self, items: &[Item]) -> Result<Option<StockView>, InventoryError> {
        let Some(first) = items.first() else { return Ok(None) };
        if is_forgotten(first, self.clock.now()) {
            return Ok(Some(StockView { closed: true, levels: items.iter().map(StockLevel::of_ledger).collect() }));
        }
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let peek = self.redis.peek(first.event_id, &ids).await?;
        Ok(staged_view(items, &peek))
    }
}

/// Whether Redis no longer keeps the item.
fn is_forgotten(item: &Item, now: Timestamp) -> bool {
    now >= item.window.closes_at.plus(KEPT_AFTER_CLOSING)
}

fn staged_view(items: &[Item], peek: &Peek) -> Option<StockView> {
    let closed = peek.now >= peek.event?.closes_at;
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
    let levels = items.iter().zip(&peek.items).map(level).collect::<Option<Vec<_>>>()?;
    Some(StockView { closed, levels })
}
