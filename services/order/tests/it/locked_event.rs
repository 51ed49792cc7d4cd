//! An item of an event is locked in the database: the buyers of other events do not wait for it.

use crate::sale::{LAMP_PRICE, Sale, UNITS, eur, refusal, refused};
use anyhow::{Result, ensure};
use futures_util::future::join_all;
use stampede_db::Conn;
use stampede_proto::order::v1::{Order, OrderState, PlaceOrderRequest};
use stampede_status::Reason;
use stampede_testkit::{buyer, eventually};
use stampede_vocab::{EventId, ItemId, UserId};
use std::time::Duration;
use tokio::{join, time::Instant};
use tonic::{Code, Status};

/// Inventory gives a commit that waits for a lock 2.5 s, and order tries it again. The others need none of that.
const PROMPT: Duration = Duration::from_secs(1);
/// Who orders in the other event meanwhile, of each kind.
const CROWD: usize = 5;

/// Locks an item until the transaction on this connection ends.
async fn hold(sale: &Sale, item: ItemId) -> Result<Conn> {
    let mut conn = sale.inventory_connection().await?;
    sqlx::raw_sql("BEGIN").execute(&mut *conn).await?;
    let lock = "SELECT item_id FROM stock WHERE item_id = ? FOR UPDATE";
    sqlx::query(lock).bind(item.uuid()).fetch_one(&mut *conn).await?;
    Ok(conn)
}

/// Waits until so many transactions of inventory wait for items.
async fn so_many_wait(sale: &Sale, transactions: i64) {
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() \
                   AND info LIKE '%FROM stock%FOR UPDATE%' AND id <> CONNECTION_ID()";
    eventually(&format!("{transactions} transactions wait for items"), || async {
        let mut conn = sale.inventory_connection().await.ok()?;
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *conn).await.ok()?;
        (count >= transactions).then_some(())
    })
    .await;
}

/// A request for so many units of an item of this event.
fn wish(sale: &Sale, event: EventId, item: usize, units: i32) -> PlaceOrderRequest {
    let wish = sale.wish("locked", &[(ItemId::derive(event, item), units)]);
    PlaceOrderRequest { event_id: event.to_string(), ..wish }
}

/// Sells all units of an item.
async fn sell_out(sale: &Sale, event: EventId, item: usize) -> Result<()> {
    for _ in 0..UNITS / 5 {
        sale.place(buyer(), wish(sale, event, item, 5)).await?;
    }
    Ok(())
}

/// A crowd orders one unit each of an item at the same time. Returns the answers, and how long the slowest took.
async fn crowd_orders(sale: &Sale, event: EventId, item: usize) -> (Vec<Result<Order, Status>>, Duration) {
    let started = Instant::now();
    let answers = join_all((0..CROWD).map(|_| sale.place(buyer(), wish(sale, event, item, 1)))).await;
    (answers, started.elapsed())
}

/// Once two batches wait for the locked event, a crowd orders in the other one. Returns how long it waited.
async fn others_order(sale: &Sale, event: EventId) -> Result<Duration> {
    so_many_wait(sale, 2).await;
    let ((placed, of_those), (too_late, of_these)) = join!(crowd_orders(sale, event, 0), crowd_orders(sale, event, 1));
    for order in placed {
        let order = order?;
        ensure!(order.state() == OrderState::AwaitingPayment, "{order:?}");
    }
    for answer in too_late {
        let status = answer.expect_err("the item is sold out");
        assert_eq!(refusal(&status), refused(Reason::SoldOut, "lines[0].units"));
    }
    Ok(of_those.max(of_these))
}

/// Places the order of somebody who has been answered so.
async fn is_taken(sale: &Sale, somebody: UserId, answer: Result<Order, Status>) {
    if let Err(status) = &answer {
        let is_retryable = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
        assert!(is_retryable, "not to be tried again: {status:?}");
    }
    let order =
        eventually("the order is taken", || async { sale.place(somebody, wish(sale, sale.event, 0, 1)).await.ok() });
    sale.reaches(&order.await, OrderState::AwaitingPayment).await;
}

#[tokio::test]
async fn an_event_with_a_locked_item_delays_no_order_of_another() -> Result<()> {
    let sale = Sale::open().await?;
    let other = sale.another_event(2, &[eur(LAMP_PRICE), eur(LAMP_PRICE)]).await?;
    sell_out(&sale, other, 1).await?;

    let mut lock = hold(&sale, sale.lamp).await?;
    let (first, second) = (buyer(), buyer());
    // Each in a batch of its own: so many may be in flight at a time.
    let order_of_second = async {
        so_many_wait(&sale, 1).await;
        sale.place(second, wish(&sale, sale.event, 0, 1)).await
    };
    let others = async {
        let waited = others_order(&sale, other).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut *lock).await?;
        waited
    };
    let order_of_first = sale.place(first, wish(&sale, sale.event, 0, 1));
    let (of_first, of_second, waited) = join!(order_of_first, order_of_second, others);
    let waited = waited?;
    assert!(waited < PROMPT, "the orders of another event took {waited:?}");
    is_taken(&sale, first, of_first).await;
    is_taken(&sale, second, of_second).await;
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 2).await.committed_units, 2);
    sale.mesh.stop().await
}
