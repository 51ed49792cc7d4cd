//! Taking orders: priced as staged, once each, never more than there is.

use crate::sale::{KETTLE_PRICE, LAMP_PRICE, Sale, UNITS, eur, refusal, refused};
use anyhow::Result;
use stampede_proto::order::v1::OrderState;
use stampede_status::{Problem, Reason};
use stampede_testkit::{Service, buyer};
use std::collections::BTreeSet;

#[tokio::test]
async fn an_order_is_priced_as_staged_and_becomes_payable() -> Result<()> {
    let sale = Sale::open().await?;
    let placed = sale.place(buyer(), sale.wish("r", &[(sale.lamp, 2), (sale.kettle, 3)])).await?;
    assert_eq!(placed.state(), OrderState::AwaitingPayment);
    let (lamps, kettles) = (&placed.lines[0], &placed.lines[1]);
    assert_eq!((lamps.units, lamps.unit_price.clone(), lamps.gift_units), (2, Some(eur(LAMP_PRICE)), 0));
    assert_eq!((kettles.units, kettles.unit_price.clone(), kettles.gift_units), (3, Some(eur(KETTLE_PRICE)), 1));
    let total = eur(2 * LAMP_PRICE + 3 * KETTLE_PRICE);
    assert_eq!((placed.total.clone(), placed.discount.clone(), placed.arrival), (Some(total), Some(eur(0)), 1));

    let payable = sale.reaches(&placed, OrderState::AwaitingPayment).await;
    assert_eq!(payable.version, 1);
    let (created, deadline) = (payable.create_time.expect("set"), payable.pay_deadline.expect("set"));
    assert!((600..=610).contains(&(deadline.seconds - created.seconds)), "ten minutes to pay");
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 2).await.committed_units, 2);
    assert_eq!(sale.published(&placed).await?, [("OrderPlaced".to_owned(), 1)]);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_repeat_is_the_same_order_whatever_has_become_of_it() -> Result<()> {
    let sale = Sale::open().await?;
    let (somebody, wish) = (buyer(), sale.wish("r", &[(sale.lamp, 2)]));
    let first = sale.place(somebody, wish.clone()).await?;
    sale.reaches(&first, OrderState::AwaitingPayment).await;
    // The buyer is at the limit now, so inventory would refuse this as a new order.
    let again = sale.place(somebody, wish.clone()).await?;
    assert_eq!((&again.order_id, again.state()), (&first.order_id, OrderState::AwaitingPayment));
    sale.cancel(&first, "c").await?;
    sale.settles_at(sale.lamp, UNITS).await;
    // Now the units are free again, but not for a repeat.
    let after = sale.place(somebody, wish).await?;
    assert_eq!((&after.order_id, after.state()), (&first.order_id, OrderState::Cancelled));
    sale.settles_at(sale.lamp, UNITS).await;
    assert_eq!(sale.orders_written().await?, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_request_id_is_good_for_one_order() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let first = sale.place(somebody, sale.wish("r", &[(sale.lamp, 1)])).await?;
    sale.reaches(&first, OrderState::AwaitingPayment).await;
    for other in [&[(sale.lamp, 2)][..], &[(sale.kettle, 1)], &[(sale.lamp, 1), (sale.kettle, 1)]] {
        let status = sale.place(somebody, sale.wish("r", other)).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::RequestIdReused, "request_id"), "{other:?}");
    }
    sale.settles_at(sale.lamp, UNITS - 1).await;
    sale.settles_at(sale.kettle, UNITS).await;
    assert_ne!(sale.place(buyer(), sale.wish("r", &[(sale.lamp, 1)])).await?.order_id, first.order_id);
    sale.mesh.stop().await
}

#[tokio::test]
async fn double_clicks_are_one_order() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let clicks = (0..20).map(|_| sale.place(somebody, sale.wish("r", &[(sale.kettle, 2)])));
    let ids: BTreeSet<String> =
        futures_util::future::try_join_all(clicks).await?.into_iter().map(|order| order.order_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(sale.orders_written().await?, 1);
    sale.settles_at(sale.kettle, UNITS - 2).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_crowd_gets_what_there_is_and_not_one_more() -> Result<()> {
    let sale = Sale::open().await?;
    let crowd = (0..60).map(|_| sale.place(buyer(), sale.wish("r", &[(sale.lamp, 1)])));
    let (placed, refused): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(crowd).await.into_iter().partition(Result::is_ok);
    assert_eq!(placed.len(), UNITS as usize);
    for status in refused.into_iter().filter_map(Result::err) {
        let problem = Problem::from_status(&status);
        assert_eq!((problem.reason(), problem.field_path()), (Reason::SoldOut, Some("lines[0].units")));
        assert_eq!(problem.metadata()["allowed_units"], "0");
    }
    let arrivals: BTreeSet<i64> = placed.iter().flatten().map(|order| order.arrival).collect();
    assert_eq!(arrivals.len(), UNITS as usize, "no two arrived at the same place");
    for order in placed.iter().flatten() {
        sale.reaches(order, OrderState::AwaitingPayment).await;
    }
    assert_eq!(sale.settles_at(sale.lamp, 0).await.committed_units, UNITS);
    sale.mesh.stop().await
}

#[tokio::test]
async fn more_than_the_buyer_would_pay_is_refused_and_given_back() -> Result<()> {
    let sale = Sale::open().await?;
    let mut wish = sale.wish("r", &[(sale.lamp, 2)]);
    wish.max_total = Some(eur(2 * LAMP_PRICE - 1));
    let status = sale.place(buyer(), wish.clone()).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Reason::PriceChanged, "max_total"));
    assert_eq!(Problem::from_status(&status).metadata()["total_minor_units"], "10000");
    let dollars = Some(stampede_proto::r#type::v1::Money { minor_units: 100_000, currency: "USD".to_owned() });
    let status = sale
        .place(buyer(), {
            wish.max_total = dollars;
            wish.clone()
        })
        .await
        .unwrap_err();
    assert_eq!(refusal(&status), refused(Reason::CurrencyMismatch, "max_total.currency"));
    sale.settles_at(sale.lamp, UNITS).await;
    assert_eq!(sale.orders_written().await?, 0);
    wish.max_total = Some(eur(2 * LAMP_PRICE));
    sale.place(buyer(), wish).await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn without_inventory_nothing_is_taken() -> Result<()> {
    let mut sale = Sale::open().await?;
    let somebody = buyer();
    let first = sale.place(somebody, sale.wish("r", &[(sale.lamp, 1)])).await?;
    sale.reaches(&first, OrderState::AwaitingPayment).await;
    sale.mesh.kill_9(Service::Inventory)?;
    // Where the machine stands still, the time of a call is over first.
    let status = stampede_testkit::eventually("a refusal within the time of a call", || async {
        let status = sale.place(buyer(), sale.wish("r", &[(sale.lamp, 1)])).await.unwrap_err();
        (refusal(&status).0 != Reason::DeadlineExceeded).then_some(status)
    })
    .await;
    assert_eq!(refusal(&status).0, Reason::Unavailable, "{status:?}");
    assert!(!status.message().contains("127.0.0.1"), "an address is nobody's business: {}", status.message());
    assert_eq!(sale.orders_written().await?, 1);
    sale.mesh.restart(Service::Inventory).await?;
    stampede_testkit::eventually("orders are taken again", || async {
        sale.place(buyer(), sale.wish("r", &[(sale.lamp, 1)])).await.ok()
    })
    .await;
    Ok(())
}
