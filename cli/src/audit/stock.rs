//! Redis against the ledger: no unit on hold for nobody, none taken that is free, none free that is taken.

use super::{sources::Sources, verdict::Audit};
use sqlx::Row;
use stampede_lua::stock::{Peek, Stock};
use stampede_vocab::{EventId, ItemId, OrderId};
use std::{collections::BTreeMap, time::Duration};

/// What the ledger says of one item.
struct Ledger {
    item: ItemId,
    total: i32,
    committed: i32,
    gift_total: i32,
    gift_committed: i32,
}

/// Compares every item of every event.
pub async fn compare(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    let stock = Stock::new(sources.redis.clone());
    let (mut items_compared, mut differing, mut held, mut missing) = (0, Vec::new(), Vec::new(), Vec::new());
    for (event, items) in ledger_by_event(sources).await? {
        let ids: Vec<ItemId> = items.iter().map(|ledger| ledger.item).collect();
        let peek = stock.peek(event, &ids).await?;
        for (ledger, shelf) in items.iter().zip(&peek.items) {
            items_compared += 1;
            match shelf {
                None => missing.push(ledger.item.to_string()),
                Some(shelf) => {
                    let (in_ledger, in_redis) = (
                        (ledger.total, ledger.committed, ledger.gift_total, ledger.gift_committed),
                        (shelf.total_units, shelf.committed_units, shelf.gift_total_units, shelf.gift_committed_units),
                    );
                    if in_ledger != in_redis {
                        differing.push(format!(
                            "{} (ledger {}, Redis {})",
                            ledger.item, ledger.committed, shelf.committed_units
                        ));
                    }
                    if shelf.held_units != 0 || shelf.gift_held_units != 0 {
                        held.push(format!(
                            "{} ({} units, {} gifts)",
                            ledger.item, shelf.held_units, shelf.gift_held_units
                        ));
                    }
                }
            }
        }
        arrivals(sources, event, &peek, audit).await?;
    }
    audit.figure(5, "items compared with Redis", items_compared);
    audit.breach(5, "Redis has another number of committed units than the ledger", differing);
    audit.breach(5, "units are still on hold in Redis", held);
    audit.breach(5, "an item of an event that goes on is not in Redis", missing);
    let orphans = orphan_holds(sources, &stock).await?;
    audit.breach(5, "a hold is left in Redis", orphans);
    Ok(())
}

/// No order has a place of arrival that Redis has not given.
async fn arrivals(sources: &Sources, event: EventId, peek: &Peek, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(shelf) = peek.event else { return Ok(()) };
    let hex: String = event.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    let last = sources
        .count(&format!("SELECT COALESCE(MAX(arrival), 0) FROM {{order}}.orders WHERE event_id = UNHEX('{hex}')"))
        .await?;
    if last > shelf.arrivals {
        audit.breach(
            8,
            "Redis would give a place of arrival again",
            vec![format!("{event} (given {}, stored {last})", shelf.arrivals)],
        );
    }
    Ok(())
}

/// Holds that are in Redis now, as lines for the reader.
pub async fn held(sources: &Sources) -> anyhow::Result<Vec<String>> {
    let stock = Stock::new(sources.redis.clone());
    let count = orphan_holds(sources, &stock).await?.len();
    Ok(if count > 0 { vec![format!("{count} holds")] } else { Vec::new() })
}

async fn orphan_holds(sources: &Sources, stock: &Stock) -> anyhow::Result<Vec<String>> {
    let mut found = BTreeMap::<OrderId, String>::new();
    for event in ledger_by_event(sources).await?.into_keys() {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = stock.aged_holds(event, from, 1_000, Duration::ZERO).await?;
            found.extend(page.holds.iter().map(|open| (open.order_id, format!("{} (event {event})", open.order_id))));
            cursor = page.next;
        }
    }
    Ok(found.into_values().collect())
}

/// Items by event. Events that closed over an hour ago are no longer kept right in Redis, and are left out.
async fn ledger_by_event(sources: &Sources) -> anyhow::Result<BTreeMap<EventId, Vec<Ledger>>> {
    let rows = sources
        .rows(
            "SELECT event_id, item_id, total_units, committed_units, gift_total_units, gift_committed_units FROM {inventory}.stock \
             WHERE closes_at_us > CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) - 3600000000",
        )
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
