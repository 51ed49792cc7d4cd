//! A row that makes no order harms its order, and none beside it.

use crate::sale::{LONG, Sale, buyer_of, refusal};
use anyhow::{Context, Result};
use futures_util::future::join_all;
use stampede_proto::order::v1::{ListOrdersRequest, Order, OrderState, WatchOrderRequest, WatchOrderResponse};
use stampede_status::{Problem, Reason};
use stampede_testkit::{MeshBuilder, as_buyer, buyer, eventually};
use tonic::Streaming;

/// No currency is written so.
const SPOIL: &str = "UPDATE orders SET currency = 'e?!' WHERE id = ?";

/// The ids of a buyer's orders, in pages of one.
async fn listed(sale: &Sale, order: &Order) -> Result<Vec<String>> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListOrdersRequest { page_size: 1, page_token, ..ListOrdersRequest::default() };
        let page = sale.mesh.order().list_orders(as_buyer(buyer_of(order), request)).await?.into_inner();
        ids.extend(page.orders.into_iter().map(|order| order.order_id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}

/// Begins to watch an order, and takes its state now.
async fn watch(sale: &Sale, order: &Order) -> Result<Streaming<WatchOrderResponse>> {
    let request = WatchOrderRequest { order_id: order.order_id.clone() };
    let mut changes = sale.mesh.order().watch_order(as_buyer(buyer_of(order), request)).await?.into_inner();
    next(&mut changes).await?;
    Ok(changes)
}

async fn next(changes: &mut Streaming<WatchOrderResponse>) -> Result<Order> {
    changes.message().await?.context("the stream goes on")?.order.context("an order")
}

#[tokio::test]
async fn an_order_that_cannot_be_read_fails_alone_and_others_go_on_beside_it() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let mut orders = Vec::new();
    for request in ["a", "b", "c"] {
        orders.push(sale.place(somebody, sale.wish(request, &[(sale.kettle, 1)])).await?);
    }
    let [first, bad, last] = &orders[..] else { panic!("three orders") };
    let (mut changes, mut changes_of_bad) = (watch(&sale, first).await?, watch(&sale, bad).await?);
    sale.tamper(bad, SPOIL).await?;
    // So that its watch reads it again.
    sale.tamper(bad, "UPDATE orders SET version = version + 1 WHERE id = ?").await?;
    assert_eq!(listed(&sale, first).await?, [last.order_id.clone(), first.order_id.clone()]);
    // Those that come together are one batch.
    let now = |order| sale.now(order);
    let (of_first, of_bad, of_last) = tokio::join!(now(first), now(bad), now(last));
    assert_eq!((&of_first?, &of_last?), (first, last));
    let status = of_bad.unwrap_err().downcast::<tonic::Status>()?;
    assert_eq!(refusal(&status).0, Reason::Internal);
    let (of_first, of_bad) = tokio::join!(sale.pay(first, "p"), sale.pay(bad, "p"));
    assert_eq!(refusal(&of_bad.unwrap_err()).0, Reason::Internal);
    let paying = of_first?;

    sale.approve(bad).await?;
    sale.approve(&paying).await?;
    sale.reaches(first, OrderState::Fulfilled).await;
    while next(&mut changes).await?.state() != OrderState::Fulfilled {}
    eventually("its message is set aside", || async { (sale.parked_keys().await.ok()? == 1).then_some(()) }).await;
    sale.tamper(bad, "UPDATE orders SET currency = 'EUR' WHERE id = ?").await?;
    assert_eq!(next(&mut changes_of_bad).await?.order_id, bad.order_id, "its watch has waited");
    drop((changes, changes_of_bad));
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_the_database_refuses_of_one_order_fails_that_one_alone() -> Result<()> {
    let sale = Sale::beside_an_earlier_release(MeshBuilder::default()).await?;
    let mut orders = Vec::new();
    for _ in 0..9 {
        orders.push(sale.payable_lamp(buyer()).await?);
    }
    let bad = orders[4].clone();
    let paying = sale.pay(&bad, "1").await?;
    sale.decline(&paying).await?;
    sale.reaches(&bad, OrderState::AwaitingPayment).await;
    // Its next payment has the number of one that is there.
    sale.tamper(&bad, "UPDATE orders SET payment_attempts = 0 WHERE id = ?").await?;
    // The first two go out alone, and while they are under way the others become one batch.
    let paid = join_all(orders.iter().map(|order| sale.pay(order, "2"))).await;
    for (order, paid) in orders.iter().zip(paid) {
        match paid {
            Ok(paying) => assert_eq!(paying.state(), OrderState::Paying),
            Err(status) => assert_eq!((order, refusal(&status).0), (&bad, Reason::Internal)),
        }
    }
    assert_eq!(sale.now(&bad).await?.state(), OrderState::AwaitingPayment);

    // One whose payments are more than it counts is known under its lock.
    let one_more = "INSERT INTO pay_requests SELECT order_id, 2, 'x', request_fingerprint, asked_us \
                    FROM pay_requests WHERE order_id = ?";
    sale.tamper(&orders[0], one_more).await?;
    let refused = sale.pay(&orders[0], "3").await.unwrap_err();
    assert_eq!(refusal(&refused).0, Reason::Internal);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_state_of_a_newer_version_is_left_to_a_replica_of_that_version() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.tamper(&order, "UPDATE orders SET state = 'HIBERNATING' WHERE id = ?").await?;
    let status = sale.now(&order).await.unwrap_err().downcast::<tonic::Status>()?;
    let problem = Problem::from_status(&status);
    assert_eq!(problem.reason(), Reason::Unavailable);
    assert!(problem.retry_delay().is_some(), "it may be asked for again");
    let look_up = stampede_proto::order::v1::LookUpOrdersRequest { order_ids: vec![order.order_id.clone()] };
    let found =
        sale.mesh.order().look_up_orders(stampede_testkit::as_inventory_service(look_up)).await?.into_inner().orders;
    assert_eq!((found.len(), found[0].state()), (1, OrderState::Unspecified), "it was written: nobody frees its units");
    sale.mesh.stop().await
}

#[tokio::test]
async fn the_sweep_expires_the_others() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let (bad, refused, good) =
        (sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?);
    sale.tamper(&bad, SPOIL).await?;
    // Its next version would be out of range, which fails the whole statement.
    sale.tamper(&refused, "UPDATE orders SET version = 9223372036854775807 WHERE id = ?").await?;
    for order in [&bad, &refused, &good] {
        sale.time_is_over(order).await?;
    }
    sale.reaches(&good, OrderState::Expired).await;
    sale.tamper(&refused, "UPDATE orders SET version = 1 WHERE id = ?").await?;
    sale.reaches(&refused, OrderState::Expired).await;
    sale.tamper(&bad, "UPDATE orders SET currency = 'EUR' WHERE id = ?").await?;
    sale.reaches(&bad, OrderState::Expired).await;
    sale.mesh.stop().await
}
