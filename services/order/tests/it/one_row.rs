//! An order is one row with all that belongs to it, unless an earlier release has run on the schema.

use crate::sale::{KETTLE_PRICE, LONG, Sale, UNITS, refusal, refused};
use anyhow::Result;
use stampede_proto::order::v1::{GoodsKind, Order, OrderState};
use stampede_status::{Problem, Reason};
use stampede_testkit::{MeshBuilder, Service, buyer};

const LINES: &str = "SELECT COUNT(*) FROM order_lines WHERE order_id = ?";
const GOODS: &str = "SELECT COUNT(*) FROM goods WHERE order_id = ?";
const PAY_REQUESTS: &str = "SELECT COUNT(*) FROM pay_requests WHERE order_id = ?";

/// Rows of the order beside its own: lines, goods, payments.
async fn other_rows(sale: &Sale, order: &Order) -> Result<[i64; 3]> {
    Ok([sale.number(order, LINES).await?, sale.number(order, GOODS).await?, sale.number(order, PAY_REQUESTS).await?])
}

/// Pays for an order of a kettle and its gift, and checks that it is read as it was bought.
async fn bought(sale: &Sale, order: &Order) -> Result<()> {
    sale.approve(&sale.pay(order, "p").await?).await?;
    let fulfilled = sale.reaches(order, OrderState::Fulfilled).await;
    assert_eq!(fulfilled.lines, order.lines);
    assert_eq!((fulfilled.lines[0].title.as_str(), fulfilled.lines[0].gift_title.as_str()), ("Kettle", "Tea set"));
    let goods: Vec<_> = fulfilled.goods.iter().map(|goods| (goods.kind(), goods.units, goods.grant_time)).collect();
    let at = fulfilled.fulfill_time;
    assert_eq!(goods, [(GoodsKind::Item, 2, at), (GoodsKind::Gift, 1, at)]);
    assert_eq!(sale.pay(order, "p").await?, fulfilled, "a repeat of the payment");
    let total = "SELECT CAST(SUM(units * unit_price_minor) AS SIGNED) FROM all_order_lines WHERE order_id = ?";
    assert_eq!(sale.number(order, total).await?, 2 * KETTLE_PRICE);
    Ok(())
}

#[tokio::test]
async fn an_order_is_one_row() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.place(buyer(), sale.wish("r", &[(sale.kettle, 2)])).await?;
    bought(&sale, &order).await?;
    assert_eq!(other_rows(&sale, &order).await?, [0, 0, 0]);
    sale.mesh.stop().await
}

#[tokio::test]
async fn beside_an_earlier_release_an_order_is_written_as_that_one_reads_it() -> Result<()> {
    let mut sale = Sale::beside_an_earlier_release(MeshBuilder::default()).await?;
    let order = sale.place(buyer(), sale.wish("r", &[(sale.kettle, 2)])).await?;
    let open = sale.payable_lamp(buyer()).await?;
    bought(&sale, &order).await?;
    assert_eq!(other_rows(&sale, &order).await?, [1, 2, 1]);
    let in_row = "SELECT COUNT(line_list) + COUNT(pay_list) FROM orders WHERE id = ?";
    assert_eq!(sale.number(&order, in_row).await?, 0);

    // Once no replica of it runs.
    sqlx::query("UPDATE order_form SET one_row = TRUE").execute(&mut *sale.connection().await?).await?;
    sale.mesh.kill_9(Service::Order)?;
    sale.mesh.restart(Service::Order).await?;
    let new = sale.payable_lamp(buyer()).await?;
    for (order, rows) in [(&open, [1, 1, 1]), (&new, [0, 0, 0])] {
        sale.approve(&sale.pay(order, "p").await?).await?;
        sale.reaches(order, OrderState::Fulfilled).await;
        assert_eq!(other_rows(&sale, order).await?, rows);
    }
    Ok(())
}

#[tokio::test]
async fn a_repeat_of_any_payment_starts_nothing_however_many_there_were() -> Result<()> {
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_ORDER_PAY_PAUSE_MS", 0).set(
        Service::Order,
        "STAMPEDE_ORDER_MAX_PAY_ATTEMPTS",
        11,
    );
    let sale = Sale::open_with(settings).await?;
    let order = sale.payable_lamp(buyer()).await?;
    // More than the row has a place for.
    let names: Vec<String> = (1..=10).map(|number| format!("p-{number}")).collect();
    for name in &names {
        let paying = sale.pay(&order, name).await?;
        sale.decline(&paying).await?;
        sale.reaches(&order, OrderState::AwaitingPayment).await;
    }
    for name in &names {
        let same = sale.pay(&order, name).await?;
        assert_eq!((same.state(), same.payment_attempts), (OrderState::AwaitingPayment, 10), "{name}");
    }
    assert_eq!(other_rows(&sale, &order).await?, [0, 0, 2]);
    sale.decline(&sale.pay(&order, "p-11").await?).await?;
    sale.reaches(&order, OrderState::AwaitingPayment).await;
    let again = sale.pay(&order, "p-12").await.unwrap_err();
    assert_eq!(refusal(&again), refused(Reason::TooManyAttempts, "order_id"));
    assert_eq!(Problem::from_status(&again).retry_delay(), None);
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_was_paid_late_has_no_gift_that_went_to_somebody_else() -> Result<()> {
    for one_row in [true, false] {
        let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis()).set(
            Service::Order,
            "STAMPEDE_ORDER_PAYING_GRACE_MS",
            0,
        );
        let sale =
            if one_row { Sale::open_with(settings).await? } else { Sale::beside_an_earlier_release(settings).await? };
        let late = sale.place(buyer(), sale.wish("r", &[(sale.kettle, 1)])).await?;
        assert_eq!(late.lines[0].gift_units, 1);
        let paying = sale.pay(&late, "p").await?;
        sale.time_is_over(&late).await?;
        sale.reaches(&late, OrderState::Expired).await;
        sale.settles_at(sale.kettle, UNITS).await;
        let other = sale.place(buyer(), sale.wish("r", &[(sale.kettle, 1)])).await?;
        sale.approve(&sale.pay(&other, "p").await?).await?;
        sale.reaches(&other, OrderState::Fulfilled).await;
        sale.approve(&paying).await?;
        let fulfilled = sale.reaches(&late, OrderState::Fulfilled).await;
        assert_eq!((fulfilled.lines[0].gift_units, fulfilled.goods.len()), (0, 1), "one row: {one_row}");
        assert_eq!(other_rows(&sale, &late).await?, if one_row { [0, 0, 0] } else { [1, 1, 1] });
        sale.mesh.stop().await?;
    }
    Ok(())
}
