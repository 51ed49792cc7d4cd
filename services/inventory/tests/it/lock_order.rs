//! Cancellations of several events in one batch, and the order in which it locks their items.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::Sale;
use stampede_db::Conn;
use stampede_testkit::eventually;
use stampede_vocab::{EventId, ItemId};
use std::time::Duration;
use tokio::time::sleep;

/// Events that are cancelled together: so many that their messages rarely come in the order of their items.
const EVENTS: usize = 6;
/// Within that a consumer has whatever has been sent. Nothing tells what its client has at hand.
const FETCHED_WITHIN: Duration = Duration::from_secs(1);

/// Locks an item until the transaction on this connection ends.
pub async fn hold(sale: &Sale, item: ItemId) -> Conn {
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *conn).await.unwrap();
    let lock = "SELECT item_id FROM stock WHERE item_id = ? FOR UPDATE";
    sqlx::query(lock).bind(item.uuid()).fetch_one(&mut *conn).await.unwrap();
    conn
}

async fn is_free(sale: &Sale, item: ItemId) -> bool {
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let lock = "SELECT item_id FROM stock WHERE item_id = ? FOR UPDATE NOWAIT";
    sqlx::query(lock).bind(item.uuid()).fetch_one(&mut *conn).await.is_ok()
}

/// Waits until a transaction of the service waits for items.
async fn somebody_waits(sale: &Sale) {
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND (info LIKE '%UPDATE stock s JOIN%' OR info LIKE '%FROM stock%FOR UPDATE%') \
                   AND id <> CONNECTION_ID()";
    eventually("a transaction waits for items", || async {
        let mut conn = sale.inventory_db.acquire().await.ok()?;
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *conn).await.ok()?;
        (count > 0).then_some(())
    })
    .await;
}

/// Waits until both items of an event are withdrawn.
async fn is_withdrawn(sale: &Sale, event: EventId) {
    let withdrawn = "SELECT COUNT(*) FROM stock WHERE event_id = ? AND event_version = 2";
    eventually("the event is withdrawn", || async {
        let mut conn = sale.inventory_db.acquire().await.ok()?;
        let count: i64 = sqlx::query_scalar(withdrawn).bind(event.uuid()).fetch_one(&mut *conn).await.ok()?;
        (count == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_cancellations_locks_items_in_the_order_of_their_ids() {
    let mut sale = Sale::open().await;
    let first = sale.event_id;
    let mut events = Vec::new();
    for _ in 0..EVENTS {
        sale.begin_another().await;
        events.push(sale.event_id);
    }
    let items_of = |event: &EventId| [0, 1].map(|index| ItemId::derive(*event, index));
    let mut items: Vec<ItemId> = events.iter().flat_map(items_of).collect();
    items.sort_unstable();

    // The others are read together once the first event is free.
    let mut of_first = hold(&sale, ItemId::derive(first, 0)).await;
    sale.event_id = first;
    sale.event_cancelled(2).await;
    somebody_waits(&sale).await;
    for event in &events {
        sale.event_id = *event;
        sale.event_cancelled(2).await;
    }
    sleep(FETCHED_WITHIN).await;
    let mut of_lowest = hold(&sale, items[0]).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *of_first).await.unwrap();
    is_withdrawn(&sale, first).await;
    somebody_waits(&sale).await;
    for item in &items[1..] {
        assert!(is_free(&sale, *item).await, "{item} is kept by a batch that waits for one with a lower id");
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut *of_lowest).await.unwrap();
    for event in events {
        is_withdrawn(&sale, event).await;
    }
}
