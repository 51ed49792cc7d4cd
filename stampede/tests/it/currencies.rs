//! A sale in a currency without cents: every amount is the same number wherever it is seen.

use crate::sale::{LONG, Sale};
use stampede_proto::{
    order::v1::{OrderState, RefundOrderRequest},
    payment::v1::{GetPaymentRequest, PaymentState},
    r#type::v1::Money,
};
use stampede_testkit::{as_operator, buyer, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn won_go_through_unscaled_from_the_price_to_the_refund() {
    let sale = Sale::open_in("KRW", LONG).await;
    let won = |minor_units| Some(Money { minor_units, currency: "KRW".to_owned() });
    assert_eq!(sale.event.items[0].unit_price, won(1_999));
    let user = buyer();
    let order = sale.bought(user, &[(0, 2)], "").await;
    assert_eq!((order.subtotal.clone(), order.total.clone()), (won(3_998), won(3_998)));
    let look = GetPaymentRequest { payment_id: order.payment_id.clone() };
    let payment = sale.mesh.payment().get_payment(as_operator(look.clone())).await.unwrap().into_inner().payment;
    assert_eq!(payment.unwrap().captured, won(3_998));

    let request = RefundOrderRequest { order_id: order.order_id.clone(), request_id: "r".to_owned() };
    sale.mesh.order().refund_order(as_operator(request)).await.unwrap();
    sale.until(user, &order, OrderState::Refunded).await;
    let refunded = eventually("the payment is refunded", || async {
        let found = sale.mesh.payment().get_payment(as_operator(look.clone())).await.ok()?.into_inner().payment?;
        (found.state() == PaymentState::Refunded).then_some(found.refunded)
    })
    .await;
    assert_eq!(refunded, won(3_998));
    // It compares every amount with the provider's own records.
    sale.audit();
    sale.mesh.stop().await.unwrap();
}
