//! Finding holds that nobody needs any more: the ledger has answered and Redis did not hear of it, or the order was
//! never written, or has ended without units.
//!
//! Several replicas may sweep the same holds: dropping one twice changes nothing.

use crate::{
    domain::{Entry, Standing},
    store,
    usecase::{
        Inventory, InventoryError,
        mirror::{Settlement, ledger_units},
    },
};
use stampede_lua::stock::{Mirror, OpenHold};
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
    /// To be looked at.
    pub looked_at: Duration,
    /// To go back although its order was not written so far. More than the time in which an order may be written.
    pub unwritten: Duration,
}

/// Where the next pass goes on in the holds of each event.
#[derive(Debug, Default)]
pub struct Sweep {
    cursors: HashMap<EventId, u64>,
}

/// What one pass has found in one event.
#[derive(Debug)]
pub struct AgedHolds {
    event_id: EventId,
    now: Timestamp,
    holds: Vec<OpenHold>,
}

impl AgedHolds {
    /// The orders that they are of.
    pub fn orders(&self) -> Vec<OrderId> {
        self.holds.iter().map(|open| open.order_id).collect()
    }
}

impl Inventory {
    /// The next aged holds of every event that may have some, without those that the ledger knows: these are settled.
    pub async fn aged_holds(&self, sweep: &mut Sweep, ages: HoldAges) -> Result<Vec<AgedHolds>, InventoryError> {
        let after = self.clock.now().minus(SEARCHED_AFTER_CLOSING);
        let items = store::stock::closing_after(&mut *self.db.acquire().await?, after).await?;
        let events: BTreeSet<EventId> = items.iter().map(|item| item.event_id).collect();
        sweep.cursors.retain(|event, _| events.contains(event));
        let mut found = Vec::new();
        for event in events {
            let aged = self.next_aged(sweep, event, ages.looked_at).await?;
            if !aged.holds.is_empty() {
                found.push(self.settle_ledgered(aged).await?);
            }
        }
        Ok(found)
    }

    /// Gives back those holds that their orders do not need; one that was asked for again since it was found stays.
    /// Returns how many were given back.
    pub async fn release_orphans(
        &self,
        aged: &AgedHolds,
        standings: &HashMap<OrderId, Standing>,
        ages: HoldAges,
    ) -> Result<u32, InventoryError> {
        let is_orphan = |open: &&OpenHold| {
            let standing = standings.get(&open.order_id).copied().unwrap_or(Standing::Unwritten);
            standing.is_orphan(aged.now.since(open.hold.held_at), ages.unwritten)
        };
        let orphans = aged.holds.iter().filter(is_orphan).map(|open| (open.order_id, open.hold.held_at));
        let orphans: Vec<(OrderId, Timestamp)> = orphans.collect();
        Ok(self.redis.release(aged.event_id, &orphans).await?)
    }

    async fn next_aged(&self, sweep: &mut Sweep, event: EventId, age: Duration) -> Result<AgedHolds, InventoryError> {
        let mut aged = AgedHolds { event_id: event, now: self.clock.now(), holds: Vec::new() };
        let mut cursor = sweep.cursors.remove(&event).unwrap_or(0);
        while aged.holds.len() < HOLDS_PER_PASS {
            let page = self.redis.aged_holds(event, cursor, HOLDS_PER_PAGE, age).await?;
            aged.now = page.now;
            aged.holds.extend(page.holds);
            let Some(next) = page.next else { return Ok(aged) };
            cursor = next;
        }
        sweep.cursors.insert(event, cursor);
        Ok(aged)
    }

    /// Settles those whose orders are in the ledger, and returns the others.
    async fn settle_ledgered(&self, aged: AgedHolds) -> Result<AgedHolds, InventoryError> {
        let conn = &mut *self.db.acquire().await?;
        let entries = store::ledger::of_orders(conn, &aged.orders()).await?;
        let ledgered: BTreeSet<OrderId> = entries.iter().map(|entry| entry.order_id).collect();
        if !ledgered.is_empty() {
            let mirrors = mirrors(conn, &entries).await?;
            let answered = aged.holds.iter().filter(|open| ledgered.contains(&open.order_id));
            let answered = answered.map(|open| (open.order_id, open.hold.items())).collect();
            self.settle(&[Settlement { event_id: aged.event_id, mirrors, answered }]).await;
        }
        let holds = aged.holds.into_iter().filter(|open| !ledgered.contains(&open.order_id)).collect();
        Ok(AgedHolds { holds, ..aged })
    }
}

/// What the ledger says of the items and buyers of these rows. The versions are read before the buyers, so these are at
/// least as new.
async fn mirrors(conn: &mut sqlx::MySqlConnection, entries: &[Entry]) -> Result<Vec<Mirror>, InventoryError> {
    let pairs: BTreeSet<(ItemId, UserId)> = entries.iter().map(|entry| (entry.line.item_id, entry.user_id)).collect();
    let ids: BTreeSet<ItemId> = pairs.iter().map(|(item_id, _)| *item_id).collect();
    let items = store::stock::of_items(conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    let units = store::ledger::units_of(conn, &pairs).await?;
    let mut buyers: BTreeMap<ItemId, Vec<(UserId, i32)>> = BTreeMap::new();
    for pair @ (item_id, user_id) in pairs {
        buyers.entry(item_id).or_default().push((user_id, units.get(&pair).copied().unwrap_or(0)));
    }
    let mirror = |item: crate::domain::Item| Mirror {
        item_id: item.id(),
        ledger: ledger_units(item.committed),
        buyers: buyers.remove(&item.id()).unwrap_or_default(),
        all_buyers: false,
    };
    Ok(items.into_iter().map(mirror).collect())
}
