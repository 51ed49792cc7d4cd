//! Several requests for one order at once: the same body many times, and other bodies under its `request_id`. Whichever
//! is written has what it was promised, and nothing is taken or discounted for the others.

use crate::sale::{DISCOUNT, LAMP_PRICE, Sale, UNITS, eur, refusal, refused};
use anyhow::Result;
use futures_util::future::join_all;
use stampede_proto::{
    coupon::v1::{Coupon, CouponState},
    order::v1::{Order, OrderState, PlaceOrderRequest},
};
use stampede_status::Reason;
use stampede_testkit::{MeshBuilder, Service, buyer, eventually};
use stampede_vocab::UserId;
use std::collections::BTreeSet;
use tonic::Status;

/// Bodies that differ, all with the coupon: one that can be had, one that is too expensive, one for more units, one for
/// another item.
fn bodies(sale: &Sale, coupon: &Coupon) -> [PlaceOrderRequest; 4] {
    let body = |lines, max_total| PlaceOrderRequest {
        coupon_id: coupon.coupon_id.clone(),
        max_total,
        ..sale.wish("r", lines)
    };
    [
        body(&[(sale.lamp, 1)], None),
        body(&[(sale.lamp, 1)], Some(eur(1))),
        body(&[(sale.lamp, 2)], None),
        body(&[(sale.kettle, 1)], None),
    ]
}

async fn all_at_once(sale: &Sale, somebody: UserId, wishes: &[PlaceOrderRequest]) -> Vec<Result<Order, Status>> {
    join_all(wishes.iter().map(|wish| sale.place(somebody, wish.clone()))).await
}

#[tokio::test]
async fn a_coupon_is_in_one_order_whatever_bodies_its_request_id_is_sent_with() -> Result<()> {
    let sale = Sale::open().await?;
    let (mut lamps, mut kettles) = (0, 0);
    for _ in 0..8 {
        let somebody = buyer();
        let coupon = sale.coupon_for(somebody).await?;
        // In turn, so that each body meets each of the others on its way.
        let wishes: Vec<_> = bodies(&sale, &coupon).iter().cycle().take(24).cloned().collect();
        let answers = all_at_once(&sale, somebody, &wishes).await;
        for status in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            // Not ready: the units of the buyer were taken and given back at each look at them. It may be sent again.
            let expected = [
                refused(Reason::RequestIdReused, "request_id"),
                refused(Reason::PriceChanged, "max_total"),
                refused(Reason::NotReady, "event_id"),
            ];
            assert!(expected.contains(&refusal(status)), "{status:?}");
        }
        let placed: Vec<&Order> = answers.iter().flatten().collect();
        let ids: BTreeSet<_> = placed.iter().map(|order| &order.order_id).collect();
        assert!(ids.len() <= 1, "{ids:?}");
        let Some(order) = placed.first() else { continue };

        assert_eq!(order.discount, Some(eur(DISCOUNT)));
        let payable = sale.reaches(order, OrderState::AwaitingPayment).await;
        for line in payable.lines {
            let of_item = if line.item_id == sale.lamp.to_string() { &mut lamps } else { &mut kettles };
            *of_item += line.units;
        }
        let held = sale.coupon(&coupon).await?;
        assert_eq!((held.state(), &held.order_id), (CouponState::Held, &order.order_id));
        let second = PlaceOrderRequest { request_id: "second".to_owned(), ..wishes[3].clone() };
        let status = sale.place(somebody, second).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::CouponInUse, "coupon_id"));
        if lamps > UNITS - 2 || kettles > UNITS - 1 {
            break;
        }
    }
    assert!(lamps + kettles > 0, "nobody got anything");
    assert_eq!(sale.settles_at(sale.lamp, UNITS - lamps).await.committed_units, lamps);
    assert_eq!(sale.settles_at(sale.kettle, UNITS - kettles).await.committed_units, kettles);
    sale.mesh.stop().await
}

#[tokio::test]
async fn twins_that_are_too_expensive_all_give_back() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let coupon = sale.coupon_for(somebody).await?;
    let expensive = bodies(&sale, &coupon)[1].clone();
    for answer in all_at_once(&sale, somebody, &vec![expensive; 20]).await {
        assert_eq!(refusal(&answer.unwrap_err()), refused(Reason::PriceChanged, "max_total"));
    }
    assert_eq!(sale.stock(sale.lamp).await?.left_units, UNITS, "the last one gave the units back");
    assert_eq!(sale.coupon(&coupon).await?.state(), CouponState::Issued);
    let order = sale.place(somebody, bodies(&sale, &coupon)[0].clone()).await?;
    assert_eq!(order.total, Some(eur(LAMP_PRICE - DISCOUNT)));
    sale.mesh.stop().await
}

#[tokio::test]
async fn the_sequence_of_the_lines_is_not_another_body() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let (there, back) = ([(sale.lamp, 1), (sale.kettle, 2)], [(sale.kettle, 2), (sale.lamp, 1)]);
    let wishes: Vec<_> = [there, back].iter().cycle().take(20).map(|lines| sale.wish("r", lines)).collect();
    let mut ids = BTreeSet::new();
    for answer in all_at_once(&sale, somebody, &wishes).await {
        ids.insert(answer?.order_id);
    }
    assert_eq!(ids.len(), 1);
    sale.settles_at(sale.lamp, UNITS - 1).await;
    sale.settles_at(sale.kettle, UNITS - 2).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_cannot_be_written_in_time_is_not_written_and_keeps_nothing() -> Result<()> {
    // No order can be written within a millisecond of its arrival.
    let settings = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_ORDER_WRITE_LIMIT_MS", 1)
        .set(Service::Inventory, "STAMPEDE_ORDER_WRITE_LIMIT_MS", 1)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 100)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", 300)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_SWEEP_INTERVAL_MS", 50);
    let sale = Sale::open_with(settings).await?;
    for _ in 0..5 {
        let status = sale.place(buyer(), sale.wish("r", &[(sale.lamp, 1)])).await.unwrap_err();
        assert!(matches!(refusal(&status).0, Reason::Unavailable | Reason::DeadlineExceeded), "{status:?}");
    }
    sale.settles_at(sale.lamp, UNITS).await;
    assert_eq!(sale.orders_written().await?, 0);
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_a_broken_off_request_took_goes_back() -> Result<()> {
    let settings = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_ORDER_WRITE_LIMIT_MS", 200)
        .set(Service::Inventory, "STAMPEDE_ORDER_WRITE_LIMIT_MS", 200)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 100)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", 300)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_SWEEP_INTERVAL_MS", 50);
    let mut sale = Sale::open_with(settings).await?;
    let somebody = buyer();
    let coupon = sale.coupon_for(somebody).await?;
    sale.mesh.kill_9(Service::Coupon)?;
    let wish = PlaceOrderRequest { coupon_id: coupon.coupon_id.clone(), ..sale.wish("r", &[(sale.lamp, 1)]) };
    let status = sale.place(somebody, wish.clone()).await.unwrap_err();
    assert!(matches!(refusal(&status).0, Reason::Unavailable | Reason::DeadlineExceeded), "{status:?}");
    // Nobody can tell whether a duplicate has the coupon, so the units are not given back here but by the sweep.
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.restart(Service::Coupon).await?;
    let order = eventually("the repeat is taken", || async { sale.place(somebody, wish.clone()).await.ok() }).await;
    assert_eq!(order.discount, Some(eur(DISCOUNT)));
    Ok(())
}
