//! An item of an event is locked in the database: the buyers of other events do not wait for it.

use crate::sale::{LAMP_PRICE, Sale, UNITS, eur, refusal, refused};
use anyhow::{Result, ensure};
use futures_util::future::join_all;
use stampede_db::Conn;
use stampede_proto::order::v1::{Order, OrderState, PlaceOrderRequest};
use stampede_status::Reason;
use stampede_testkit::{buyer, eventually};
use stampede_vocab::{EventId, ItemId, UserId};
use std::cell::Cell;
use tokio::join;
use tonic::{Code, Status};

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

/// A crowd orders one unit each of an item at the same time.
async fn crowd_orders(sale: &Sale, event: EventId, item: usize) -> Vec<Result<Order, Status>> {
    join_all((0..CROWD).map(|_| sale.place(buyer(), wish(sale, event, item, 1)))).await
}

/// Once two batches wait for the locked event, a crowd orders in the other one.
async fn others_order(sale: &Sale, event: EventId) -> Result<()> {
    so_many_wait(sale, 2).await;
    let (placed, too_late) = join!(crowd_orders(sale, event, 0), crowd_orders(sale, event, 1));
    for order in placed {
        let order = order?;
        ensure!(order.state() == OrderState::AwaitingPayment, "{order:?}");
    }
    for answer in too_late {
        let status = answer.expect_err("the item is sold out");
        assert_eq!(refusal(&status), refused(Reason::SoldOut, "lines[0].units"));
    }
    Ok(())
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
    let is_first_answered = Cell::new(false);
    let others = async {
        let answered = others_order(&sale, other).await;
        // Each order of the locked event takes two commits of 2.5 s at least, unless the lock goes before.
        let were_first = !is_first_answered.get();
        sqlx::raw_sql("ROLLBACK").execute(&mut *lock).await?;
        answered.map(|()| were_first)
    };
    let order_of_first = async {
        let answer = sale.place(first, wish(&sale, sale.event, 0, 1)).await;
        is_first_answered.set(true);
        answer
    };
    let (of_first, of_second, were_first) = join!(order_of_first, order_of_second, others);
    assert!(were_first?, "the orders of another event waited for that of the locked one");
    is_taken(&sale, first, of_first).await;
    is_taken(&sale, second, of_second).await;
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 2).await.committed_units, 2);
    sale.mesh.stop().await
}
