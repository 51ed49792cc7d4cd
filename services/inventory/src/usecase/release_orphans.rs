//! Gives back holds that nobody needs any more: the ledger has answered and Redis did not hear of it, or the order was
//! never written, or has ended without units.
//!
//! Several replicas may sweep the same holds: dropping one twice changes nothing.

use super::{
    Error, SyncRedis,
    sync_redis::{EventSync, ledger_units},
};
use crate::{
    client::Orders,
    domain::{Entry, Item, OrderLiveness},
    store,
};
use sqlx::{MySql, MySqlConnection, pool::PoolConnection};
use stampede_db::{Database, DbError};
use stampede_lua::stock::{LedgerCopy, OpenHold, Stock};
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// Holds that one look at Redis covers.
const HOLDS_PER_PAGE: u32 = 500;
/// Aged holds of one event that one pass takes on; the next pass goes on behind them.
const HOLDS_PER_PASS: usize = 1_000;
/// How long after its closing an event is still searched. No hold is granted after the closing.
const SEARCHED_AFTER_CLOSING: Duration = Duration::from_secs(3_600);

/// How old a hold must be.
#[derive(Debug, Clone, Copy)]
pub struct HoldAges {
    pub looked_at: Duration,
    /// To go back although its order was not written so far. More than the time in which an order may be written.
    pub unwritten: Duration,
}

/// What one pass has found in one event.
#[derive(Debug)]
struct AgedHolds {
    event_id: EventId,
    now: Timestamp,
    holds: Vec<OpenHold>,
}

impl AgedHolds {
    fn orders(&self) -> Vec<OrderId> {
        self.holds.iter().map(|open| open.order_id).collect()
    }
}

/// Gives back orphaned holds.
pub struct ReleaseOrphans {
    db: Database,
    redis: Stock,
    sync: SyncRedis,
    orders: Orders,
    ages: HoldAges,
    /// Where the next pass goes on in the holds of each event.
    cursors: HashMap<EventId, u64>,
}

impl ReleaseOrphans {
    /// Asks the ledger of this schema, and then the order service, about holds of these ages.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis, orders: Orders, ages: HoldAges) -> Self {
        Self { db, redis, sync, orders, ages, cursors: HashMap::new() }
    }

    /// Makes one pass over the aged holds of every event that may have some.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut released = 0;
        for aged in self.aged_holds().await? {
            let liveness_by_order = self.orders.liveness_by_order(&aged.orders()).await?;
            released += self.release(&aged, &liveness_by_order).await?;
        }
        if released > 0 {
            tracing::info!(hold.count = released, "holds that no order needs were given back");
        }
        Ok(())
    }

    /// The next aged holds of every event that may have some, without those that the ledger knows: these are settled.
    async fn aged_holds(&mut self) -> Result<Vec<AgedHolds>, Error> {
        let after = Timestamp::now().minus(SEARCHED_AFTER_CLOSING);
        let items: Vec<Item> = self
            .db
            .run("items_on_sale", |mut conn| async move { store::stock::closing_after(&mut conn, after).await })
            .await?;
        let events: BTreeSet<EventId> = items.iter().map(|item| item.event_id).collect();
        self.cursors.retain(|event, _| events.contains(event));
        let mut found = Vec::new();
        for event in events {
            let aged = self.next_aged(event).await?;
            if !aged.holds.is_empty() {
                found.push(self.drop_answered(aged).await?);
            }
        }
        Ok(found)
    }

    /// Gives back those holds that their orders do not need; one that was asked for again since it was found stays.
    /// Returns how many were given back.
    async fn release(
        &self,
        aged: &AgedHolds,
        liveness_by_order: &HashMap<OrderId, OrderLiveness>,
    ) -> Result<u32, Error> {
        let is_orphan = |open: &&OpenHold| {
            let liveness = liveness_by_order.get(&open.order_id).copied().unwrap_or(OrderLiveness::Unwritten);
            liveness.is_orphan(aged.now.since(open.hold.held_at), self.ages.unwritten)
        };
        let orphans = aged.holds.iter().filter(is_orphan).map(|open| (open.order_id, open.hold.held_at));
        let orphans: Vec<(OrderId, Timestamp)> = orphans.collect();
        Ok(self.redis.release(aged.event_id, &orphans).await?)
    }

    async fn next_aged(&mut self, event: EventId) -> Result<AgedHolds, Error> {
        let mut aged = AgedHolds { event_id: event, now: Timestamp::now(), holds: Vec::new() };
        let mut cursor = self.cursors.remove(&event).unwrap_or(0);
        while aged.holds.len() < HOLDS_PER_PASS {
            let page = self.redis.aged_holds(event, cursor, HOLDS_PER_PAGE, self.ages.looked_at).await?;
            aged.now = page.now;
            aged.holds.extend(page.holds);
            let Some(next) = page.next else { return Ok(aged) };
            cursor = next;
        }
        self.cursors.insert(event, cursor);
        Ok(aged)
    }

    /// Drops the holds of orders that are in the ledger, and returns the others.
    async fn drop_answered(&self, aged: AgedHolds) -> Result<AgedHolds, Error> {
        let orders = aged.orders();
        let read = |mut conn: PoolConnection<MySql>| async move {
            let entries = store::ledger::of_orders(&mut conn, &orders).await?;
            let ledger_copies = ledger_copies(&mut conn, &entries).await?;
            Ok::<_, DbError>((entries, ledger_copies))
        };
        let (entries, ledger_copies) = self.db.run("ledger_of_holds", read).await?;
        let ledgered: BTreeSet<OrderId> = entries.iter().map(|entry| entry.order_id).collect();
        if !ledgered.is_empty() {
            let answered = aged.holds.iter().filter(|open| ledgered.contains(&open.order_id));
            let answered = answered.map(|open| (open.order_id, open.hold.items())).collect();
            self.sync.run(&[EventSync { event_id: aged.event_id, ledger_copies, answered }]).await;
        }
        let holds = aged.holds.into_iter().filter(|open| !ledgered.contains(&open.order_id)).collect();
        Ok(AgedHolds { holds, ..aged })
    }
}

/// What the ledger says of the items and buyers of these rows. The versions are read before the buyers, so these are at
/// least as new.
async fn ledger_copies(conn: &mut MySqlConnection, entries: &[Entry]) -> Result<Vec<LedgerCopy>, DbError> {
    let pairs: BTreeSet<(ItemId, UserId)> = entries.iter().map(|entry| (entry.line.item_id, entry.user_id)).collect();
    let ids: BTreeSet<ItemId> = pairs.iter().map(|(item_id, _)| *item_id).collect();
    let items = store::stock::of_items(conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    let units = store::ledger::units_of(conn, &pairs).await?;
    let mut buyers: BTreeMap<ItemId, Vec<(UserId, i32)>> = BTreeMap::new();
    for pair @ (item_id, user_id) in pairs {
        buyers.entry(item_id).or_default().push((user_id, units.get(&pair).copied().unwrap_or(0)));
    }
    let ledger_copy = |item: Item| LedgerCopy {
        item_id: item.id(),
        ledger: ledger_units(item.committed),
        buyers: buyers.remove(&item.id()).unwrap_or_default(),
        all_buyers: false,
    };
    Ok(items.into_iter().map(ledger_copy).collect())
}
