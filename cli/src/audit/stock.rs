//! Compares Redis with the ledger: no hold without an order, and the same sold and free units, in all and for each
//! buyer.

use super::{hex, named::Named, sources::Sources, verdict::Audit};
use sqlx::Row;
use stampede_lua::stock::{ShelfItem, Snapshot, Stock};
use stampede_vocab::{EventId, ItemId, OrderId, UserId};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Size of one page read from Redis.
const PAGE: u32 = 1_000;
/// Redis is not kept in sync for events that ended long ago.
const RECENT: &str = "closes_at_us > CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 3600000000";

/// An item in the ledger.
struct Ledger {
    item: ItemId,
    total: i32,
    committed: i32,
    gift_total: i32,
    gift_committed: i32,
}

/// Units by buyer.
type Buyers = HashMap<UserId, i32>;

impl Ledger {
    fn is_copied_to(&self, shelf: &ShelfItem) -> bool {
        (self.total, self.committed, self.gift_total, self.gift_committed)
            == (shelf.total_units, shelf.committed_units, shelf.gift_total_units, shelf.gift_committed_units)
    }
}

/// Compares every item of every event, and every buyer of it.
pub async fn compare(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    let stock = Stock::new(sources.redis.clone());
    let (mut items_compared, mut buyers_compared) = (0, 0);
    let [mut differing, mut held, mut missing, mut buyers_differ] = std::array::from_fn(|_| Named::default());
    for (event, items) in ledger_by_event(sources).await? {
        let snapshot = snapshot(&stock, event, &items).await?;
        for (ledger, shelf) in items.iter().zip(&snapshot.items) {
            items_compared += 1;
            let Some(shelf) = shelf else {
                missing.push(ledger.item.to_string());
                continue;
            };
            if !ledger.is_copied_to(shelf) {
                let units = format!("ledger {} of {}", ledger.committed, ledger.total);
                let copied = format!("Redis {} of {}", shelf.committed_units, shelf.total_units);
                differing.push(format!("{} ({units}, {copied})", ledger.item));
            }
            if shelf.held_units != 0 || shelf.gift_held_units != 0 {
                let (units, gifts) = (shelf.held_units, shelf.gift_held_units);
                held.push(format!("{} ({units} units, {gifts} gifts)", ledger.item));
            }
            let wanted = buyers_in_ledger(sources, ledger.item).await?;
            buyers_compared += wanted.len();
            buyers_differ.merge(wrong_buyers(&stock, event, ledger.item, &wanted).await?);
        }
        arrivals(sources, event, &snapshot, audit).await?;
    }
    audit.figure(5, "items compared with Redis", items_compared);
    audit.figure(5, "buyers of them", i64::try_from(buyers_compared)?);
    audit.breach(5, "Redis has another number of committed units than the ledger", differing);
    audit.breach(5, "Redis has other units of a buyer than the ledger", buyers_differ);
    audit.breach(5, "units are still on hold in Redis", held);
    audit.breach(5, "an item of an event that goes on is not in Redis", missing);
    let left = remaining_holds(sources, &stock).await?;
    audit.breach(5, "a hold is left in Redis", left.into_iter().collect());
    note_long_over(sources, audit).await
}

/// Returns the items that are not in sync yet, and those with holds, as lines for people.
pub async fn moving(sources: &Sources) -> anyhow::Result<Vec<String>> {
    let stock = Stock::new(sources.redis.clone());
    let mut behind = 0;
    for (event, items) in ledger_by_event(sources).await? {
        let snapshot = snapshot(&stock, event, &items).await?;
        let is_behind = |(ledger, shelf): &(&Ledger, &Option<ShelfItem>)| {
            shelf.is_none_or(|shelf| !ledger.is_copied_to(&shelf) || shelf.stale_at.is_some())
        };
        behind += items.iter().zip(&snapshot.items).filter(is_behind).count();
    }
    let holds = remaining_holds(sources, &stock).await?.len();
    let counted = [(behind, "items to be copied to Redis"), (holds, "holds")];
    Ok(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect())
}

async fn snapshot(stock: &Stock, event: EventId, items: &[Ledger]) -> anyhow::Result<Snapshot> {
    let ids: Vec<ItemId> = items.iter().map(|ledger| ledger.item).collect();
    Ok(stock.snapshot(event, &ids).await?)
}

/// Returns the units of each buyer of an item.
async fn buyers_in_ledger(sources: &Sources, item: ItemId) -> anyhow::Result<Buyers> {
    let rows = sources
        .rows(&format!(
            "SELECT user_id, CAST(SUM(units) AS SIGNED) FROM {{inventory}}.ledger \
             WHERE item_id = {} AND state = 'COMMITTED' GROUP BY user_id",
            in_sql(item.as_bytes())
        ))
        .await?;
    rows.iter()
        .map(|row| Ok((UserId::try_from_bytes(row.try_get(0)?)?, i32::try_from(row.try_get::<i64, _>(1)?)?)))
        .collect()
}

/// Returns the buyers whose units in Redis differ from `wanted`, or who have holds.
async fn wrong_buyers(stock: &Stock, event: EventId, item: ItemId, wanted: &Buyers) -> anyhow::Result<Named> {
    let (mut committed, mut held) = (Buyers::new(), Buyers::new());
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let page = stock.buyers(event, item, from, PAGE).await?;
        committed.extend(page.committed);
        held.extend(page.held);
        cursor = page.next;
    }
    let buyers = wanted.keys().chain(committed.keys().filter(|user| !wanted.contains_key(user)));
    let units_of = |buyers: &Buyers, user: &UserId| buyers.get(user).copied().unwrap_or(0);
    let mut wrong = Named::default();
    for user in buyers {
        let (ledger, copied) = (units_of(wanted, user), units_of(&committed, user));
        if ledger != copied {
            wrong.push(format!("{user} (of {item} ledger {ledger}, Redis {copied})"));
        }
    }
    let still_held = held.iter().filter(|(_, units)| **units != 0);
    wrong.extend(still_held.map(|(user, units)| format!("{user} (of {item} {units} on hold)")));
    Ok(wrong)
}

/// Checks that no order has an arrival that Redis has not assigned.
async fn arrivals(sources: &Sources, event: EventId, snapshot: &Snapshot, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(shelf) = snapshot.event else { return Ok(()) };
    let last = sources
        .count(&format!(
            "SELECT COALESCE(MAX(arrival), 0) FROM {{order}}.orders WHERE event_id = {}",
            in_sql(event.as_bytes())
        ))
        .await?;
    if last > shelf.arrivals {
        audit.breach(
            8,
            "Redis would give a place of arrival again",
            Named::from_iter([format!("{event} (given {}, stored {last})", shelf.arrivals)]),
        );
    }
    Ok(())
}

async fn remaining_holds(sources: &Sources, stock: &Stock) -> anyhow::Result<Vec<String>> {
    let mut found = BTreeMap::<OrderId, String>::new();
    for event in ledger_by_event(sources).await?.into_keys() {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = stock.aged_holds(event, from, PAGE, Duration::ZERO).await?;
            found.extend(page.holds.iter().map(|open| (open.order_id, format!("{} (event {event})", open.order_id))));
            cursor = page.next;
        }
    }
    Ok(found.into_values().collect())
}

/// Returns the items by event, of events that Redis is kept in sync for.
async fn ledger_by_event(sources: &Sources) -> anyhow::Result<BTreeMap<EventId, Vec<Ledger>>> {
    let rows = sources
        .rows(&format!(
            "SELECT event_id, item_id, total_units, committed_units, gift_total_units, gift_committed_units \
             FROM {{inventory}}.stock WHERE {RECENT}"
        ))
        .await?;
    let mut events: BTreeMap<EventId, Vec<Ledger>> = BTreeMap::new();
    for row in &rows {
        let event = EventId::try_from_bytes(row.try_get(0)?)?;
        events.entry(event).or_default().push(Ledger {
            item: ItemId::try_from_bytes(row.try_get(1)?)?,
            total: row.try_get(2)?,
            committed: row.try_get(3)?,
            gift_total: row.try_get(4)?,
            gift_committed: row.try_get(5)?,
        });
    }
    Ok(events)
}

async fn note_long_over(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    let over = sources.count(&format!("SELECT COUNT(*) FROM {{inventory}}.stock WHERE NOT ({RECENT})")).await?;
    if over > 0 {
        audit.leave_out(format!(
            "{over} items with Redis: their events closed over an hour ago, and Redis is not kept right for them any more"
        ));
    }
    Ok(())
}

fn in_sql(id: &[u8]) -> String {
    format!("UNHEX('{}')", hex(id))
}
