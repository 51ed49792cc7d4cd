//! The messages of an order use or return its coupon, each once and in order.

use crate::sale::{Orders, Sale, hold_request, order, reason};
use anyhow::Result;
use prost::Message;
use stampede_proto::{coupon::v1::CouponState, message::v1 as messages};
use stampede_status::Reason;
use stampede_testkit::buyer;
use stampede_vocab::OrderId;

fn fulfilled(order: OrderId, coupon_id: &str) -> (&'static str, Vec<u8>) {
    let message = messages::OrderFulfilled {
        order_id: order.to_string(),
        coupon_id: coupon_id.to_owned(),
        ..messages::OrderFulfilled::default()
    };
    ("stampede.message.v1.OrderFulfilled", message.encode_to_vec())
}

fn refunded(order: OrderId, coupon_id: &str) -> (&'static str, Vec<u8>) {
    let message = messages::OrderRefunded { order_id: order.to_string(), coupon_id: coupon_id.to_owned() };
    ("stampede.message.v1.OrderRefunded", message.encode_to_vec())
}

fn expired(order: OrderId, coupon_id: &str) -> (&'static str, Vec<u8>) {
    let message = messages::OrderExpired { order_id: order.to_string(), coupon_id: coupon_id.to_owned() };
    ("stampede.message.v1.OrderExpired", message.encode_to_vec())
}

fn cancelled(order: OrderId, coupon_id: &str) -> (&'static str, Vec<u8>) {
    let message = messages::OrderCancelled { order_id: order.to_string(), coupon_id: coupon_id.to_owned() };
    ("stampede.message.v1.OrderCancelled", message.encode_to_vec())
}

#[tokio::test]
async fn a_fulfilled_order_uses_its_coupon_and_a_refund_returns_it() -> Result<()> {
    let sale = Sale::open().await?;
    let orders = Orders::open(&sale.world).await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    sale.hold(hold_request(&coupon, order(1))).await?;
    orders.publish(order(1), vec![fulfilled(order(1), &coupon.coupon_id)]).await?;
    let used = sale.reaches(&coupon, CouponState::Used).await;
    assert_eq!(used.order_id, order(1).to_string());
    sale.release(&coupon, order(1)).await?;
    let taken = sale.hold(hold_request(&coupon, order(2))).await.expect_err("it is used");
    assert_eq!((sale.now(&coupon).await?, reason(&taken)), (used, Reason::CouponInUse));

    orders.publish(order(1), vec![refunded(order(1), &coupon.coupon_id)]).await?;
    assert_eq!(sale.reaches(&coupon, CouponState::Issued).await, coupon);
    sale.mesh.stop().await
}

#[tokio::test]
async fn messages_of_one_batch_take_effect_in_their_order() -> Result<()> {
    let sale = Sale::open().await?;
    let orders = Orders::open(&sale.world).await?;
    let campaign = sale.campaign(3).await?;
    let returned = sale.claim(&campaign, buyer(), "a").await?;
    let marker = sale.claim(&campaign, buyer(), "a").await?;
    sale.hold(hold_request(&returned, order(1))).await?;
    sale.hold(hold_request(&marker, order(1))).await?;
    // Written at once, so read as one batch: used, returned, and repeated; the marker shows when all are applied.
    let id = &returned.coupon_id;
    let messages = vec![
        fulfilled(order(1), id),
        refunded(order(1), id),
        refunded(order(1), id),
        expired(order(2), id),
        fulfilled(order(1), &marker.coupon_id),
        fulfilled(order(1), ""),
    ];
    orders.publish(order(1), messages).await?;
    sale.reaches(&marker, CouponState::Used).await;
    assert_eq!(sale.now(&returned).await?, returned);
    sale.mesh.stop().await
}

#[tokio::test]
async fn the_end_of_one_order_leaves_the_coupon_of_another_alone() -> Result<()> {
    let sale = Sale::open().await?;
    let orders = Orders::open(&sale.world).await?;
    let campaign = sale.campaign(3).await?;
    let held = sale.claim(&campaign, buyer(), "a").await?;
    let marker = sale.claim(&campaign, buyer(), "a").await?;
    let kept = sale.hold(hold_request(&held, order(2))).await?;
    sale.hold(hold_request(&marker, order(1))).await?;
    let messages = vec![
        expired(order(1), &held.coupon_id),
        cancelled(order(1), &held.coupon_id),
        fulfilled(order(1), &held.coupon_id),
        cancelled(order(1), &marker.coupon_id),
    ];
    orders.publish(order(1), messages).await?;
    sale.reaches(&marker, CouponState::Issued).await;
    assert_eq!(sale.now(&held).await?, kept);
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_paid_after_it_had_expired_uses_its_coupon_after_all() -> Result<()> {
    let sale = Sale::open().await?;
    let orders = Orders::open(&sale.world).await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    sale.hold(hold_request(&coupon, order(1))).await?;
    orders.publish(order(1), vec![expired(order(1), &coupon.coupon_id)]).await?;
    sale.reaches(&coupon, CouponState::Issued).await;
    orders.publish(order(1), vec![fulfilled(order(1), &coupon.coupon_id)]).await?;
    assert_eq!(sale.reaches(&coupon, CouponState::Used).await.order_id, order(1).to_string());
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_is_repeated_changes_nothing_also_behind_what_came_later() -> Result<()> {
    let sale = Sale::open().await?;
    let orders = Orders::open(&sale.world).await?;
    let campaign = sale.campaign(4).await?;
    let (returned, late) = (sale.claim(&campaign, buyer(), "a").await?, sale.claim(&campaign, buyer(), "a").await?);
    let marker = sale.claim(&campaign, buyer(), "a").await?;
    for coupon in [&returned, &late, &marker] {
        sale.hold(hold_request(coupon, order(1))).await?;
    }
    let (id, late_id) = (&returned.coupon_id, &late.coupon_id);
    let ends = [fulfilled(order(1), id), refunded(order(1), id)];
    // Paid after it had expired, so that the coupon was used after all.
    let late_ends = [expired(order(1), late_id), fulfilled(order(1), late_id)];
    let twice = |ends: &[(&'static str, Vec<u8>)]| {
        let each_twice = ends.iter().flat_map(|end| [end.clone(), end.clone()]);
        each_twice.chain(ends.iter().cloned()).collect::<Vec<_>>()
    };
    let first_of_all = [twice(&ends), twice(&late_ends), vec![cancelled(order(1), late_id)]].concat();
    orders.publish(order(1), [first_of_all, vec![fulfilled(order(1), &marker.coupon_id)]].concat()).await?;
    sale.reaches(&marker, CouponState::Used).await;
    assert_eq!(sale.now(&returned).await?, returned, "it was refunded");
    let used = sale.now(&late).await?;
    assert_eq!((used.state(), used.order_id), (CouponState::Used, order(1).to_string()));

    // In batches of their own, and while another order has the coupon.
    let held = sale.hold(hold_request(&returned, order(2))).await?;
    let again = [twice(&ends), twice(&late_ends), vec![refunded(order(1), &marker.coupon_id)]].concat();
    orders.publish(order(1), again).await?;
    sale.reaches(&marker, CouponState::Issued).await;
    assert_eq!(sale.now(&returned).await?, held);
    assert_eq!(sale.now(&late).await?.state(), CouponState::Used);
    sale.mesh.stop().await
}
