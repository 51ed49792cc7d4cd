//! The messages of an order use or return its coupon, each once and in order.

use crate::shop::{Orders, Shop, hold_request, order, reason};
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
    let shop = Shop::open().await?;
    let orders = Orders::open(&shop.world).await?;
    let coupon = shop.claim(&shop.campaign(1).await?, buyer(), "a").await?;
    shop.hold(hold_request(&coupon, order(1))).await?;
    orders.publish(order(1), vec![fulfilled(order(1), &coupon.coupon_id)]).await?;
    let used = shop.reaches(&coupon, CouponState::Used).await;
    assert_eq!(used.order_id, order(1).to_string());
    shop.release(&coupon, order(1)).await?;
    let taken = shop.hold(hold_request(&coupon, order(2))).await.expect_err("it is used");
    assert_eq!((shop.now(&coupon).await?, reason(&taken)), (used, Reason::CouponInUse));

    orders.publish(order(1), vec![refunded(order(1), &coupon.coupon_id)]).await?;
    assert_eq!(shop.reaches(&coupon, CouponState::Issued).await, coupon);
    shop.mesh.stop().await
}

#[tokio::test]
async fn messages_of_one_batch_take_effect_in_their_order() -> Result<()> {
    let shop = Shop::open().await?;
    let orders = Orders::open(&shop.world).await?;
    let campaign = shop.campaign(3).await?;
    let returned = shop.claim(&campaign, buyer(), "a").await?;
    let marker = shop.claim(&campaign, buyer(), "a").await?;
    shop.hold(hold_request(&returned, order(1))).await?;
    shop.hold(hold_request(&marker, order(1))).await?;
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
    shop.reaches(&marker, CouponState::Used).await;
    assert_eq!(shop.now(&returned).await?, returned);
    shop.mesh.stop().await
}

#[tokio::test]
async fn the_end_of_one_order_leaves_the_coupon_of_another_alone() -> Result<()> {
    let shop = Shop::open().await?;
    let orders = Orders::open(&shop.world).await?;
    let campaign = shop.campaign(3).await?;
    let held = shop.claim(&campaign, buyer(), "a").await?;
    let marker = shop.claim(&campaign, buyer(), "a").await?;
    let kept = shop.hold(hold_request(&held, order(2))).await?;
    shop.hold(hold_request(&marker, order(1))).await?;
    let messages = vec![
        expired(order(1), &held.coupon_id),
        cancelled(order(1), &held.coupon_id),
        fulfilled(order(1), &held.coupon_id),
        cancelled(order(1), &marker.coupon_id),
    ];
    orders.publish(order(1), messages).await?;
    shop.reaches(&marker, CouponState::Issued).await;
    assert_eq!(shop.now(&held).await?, kept);
    shop.mesh.stop().await
}

#[tokio::test]
async fn an_order_paid_after_it_had_expired_uses_its_coupon_after_all() -> Result<()> {
    let shop = Shop::open().await?;
    let orders = Orders::open(&shop.world).await?;
    let coupon = shop.claim(&shop.campaign(1).await?, buyer(), "a").await?;
    shop.hold(hold_request(&coupon, order(1))).await?;
    orders.publish(order(1), vec![expired(order(1), &coupon.coupon_id)]).await?;
    shop.reaches(&coupon, CouponState::Issued).await;
    orders.publish(order(1), vec![fulfilled(order(1), &coupon.coupon_id)]).await?;
    assert_eq!(shop.reaches(&coupon, CouponState::Used).await.order_id, order(1).to_string());
    shop.mesh.stop().await
}
