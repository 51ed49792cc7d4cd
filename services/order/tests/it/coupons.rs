//! Orders with a coupon: it is held with the order, and returns whenever the order comes to nothing.

use crate::sale::{DISCOUNT, LAMP_PRICE, LONG, Sale, UNITS, eur, refusal, refused};
use anyhow::Result;
use stampede_proto::{
    coupon::v1::{Coupon, CouponState},
    order::v1::{Order, OrderState, PlaceOrderRequest},
};
use stampede_status::Reason;
use stampede_testkit::{buyer, eventually};
use stampede_vocab::UserId;

async fn coupon_is(sale: &Sale, coupon: &Coupon, state: CouponState) {
    eventually(&format!("{} is {state:?}", coupon.coupon_id), || async {
        sale.coupon(coupon).await.ok().filter(|now| now.state() == state)
    })
    .await;
}

fn with(coupon: &Coupon, wish: PlaceOrderRequest) -> PlaceOrderRequest {
    PlaceOrderRequest { coupon_id: coupon.coupon_id.clone(), ..wish }
}

async fn lamp_with_coupon(sale: &Sale, somebody: UserId) -> Result<(Order, Coupon)> {
    let coupon = sale.coupon_for(somebody).await?;
    let placed = sale.place(somebody, with(&coupon, sale.wish("r", &[(sale.lamp, 1)]))).await?;
    Ok((sale.reaches(&placed, OrderState::AwaitingPayment).await, coupon))
}

#[tokio::test]
async fn a_coupon_takes_its_discount_off_and_is_used_with_the_order() -> Result<()> {
    let sale = Sale::open().await?;
    let (order, coupon) = lamp_with_coupon(&sale, buyer()).await?;
    assert_eq!((order.subtotal.clone(), order.discount.clone()), (Some(eur(LAMP_PRICE)), Some(eur(DISCOUNT))));
    assert_eq!(order.total, Some(eur(LAMP_PRICE - DISCOUNT)));
    coupon_is(&sale, &coupon, CouponState::Held).await;
    let paying = sale.pay(&order, "p").await?;
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    coupon_is(&sale, &coupon, CouponState::Used).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_coupon_that_cannot_be_used_takes_no_stock() -> Result<()> {
    let sale = Sale::open().await?;
    let (somebody, other) = (buyer(), buyer());
    let (_, coupon) = lamp_with_coupon(&sale, somebody).await?;
    let again = with(&coupon, sale.wish("again", &[(sale.kettle, 1)]));
    let in_use = sale.place(somebody, again.clone()).await.unwrap_err();
    assert_eq!(refusal(&in_use), refused(Reason::CouponInUse, "coupon_id"));
    let foreign = sale.place(other, again).await.unwrap_err();
    assert_eq!(refusal(&foreign), refused(Reason::CouponNotFound, "coupon_id"));
    sale.settles_at(sale.kettle, UNITS).await;
    coupon_is(&sale, &coupon, CouponState::Held).await;
    assert_eq!(sale.orders_written().await?, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_coupon_returns_with_an_order_that_is_cancelled_and_a_repeat_does_not_take_it_again() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let (order, coupon) = lamp_with_coupon(&sale, somebody).await?;
    sale.cancel(&order, "c").await?;
    coupon_is(&sale, &coupon, CouponState::Issued).await;
    let repeat = sale.place(somebody, with(&coupon, sale.wish("r", &[(sale.lamp, 1)]))).await?;
    assert_eq!(repeat.state(), OrderState::Cancelled);
    coupon_is(&sale, &coupon, CouponState::Issued).await;
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_late_payment_with_a_coupon_is_refunded() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let (order, coupon) = lamp_with_coupon(&sale, buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    coupon_is(&sale, &coupon, CouponState::Issued).await;
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Refunding).await;
    sale.money_is_back(&paying).await?;
    let refunded = sale.reaches(&order, OrderState::Refunded).await;
    assert!(refunded.goods.is_empty());
    coupon_is(&sale, &coupon, CouponState::Issued).await;
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.stop().await
}
