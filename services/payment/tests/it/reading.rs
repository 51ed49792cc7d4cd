//! Who sees which payments.

use crate::sale::{Order, Sale};
use anyhow::Result;
use stampede_proto::payment::v1::{GetPaymentRequest, ListPaymentsRequest, ListPaymentsResponse, PaymentState};
use stampede_status::{Problem, Reason};
use stampede_testkit::{as_buyer, as_operator, buyer};
use stampede_vocab::UserId;
use tonic::{Request, Status};

pub async fn get(sale: &Sale, user: UserId, payment_id: &str) -> Result<String, Status> {
    let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
    let payment = sale.mesh.payment().get_payment(as_buyer(user, request)).await?.into_inner().payment;
    Ok(payment.unwrap_or_default().payment_id)
}

pub async fn list(sale: &Sale, request: Request<ListPaymentsRequest>) -> Result<ListPaymentsResponse, Status> {
    Ok(sale.mesh.payment().list_payments(request).await?.into_inner())
}

fn ids(page: &ListPaymentsResponse) -> Vec<String> {
    page.payments.iter().map(|payment| payment.payment_id.clone()).collect()
}

#[tokio::test]
async fn a_buyer_sees_their_own_payments_and_an_operator_all() -> Result<()> {
    let sale = Sale::open().await?;
    let (ann, bob) = (buyer(), buyer());
    let orders = ["a", "b", "c"].map(|request| Order::of(ann, request));
    let other = Order::of(bob, "a");
    // One after the other, so that their times differ.
    for order in orders.iter().chain([&other]) {
        sale.pay(order, 1, "pm_card_ok").await?;
        sale.reaches(order, PaymentState::Captured).await;
    }
    assert_eq!(get(&sale, ann, &orders[0].payment_id()).await?, orders[0].payment_id());
    let refused = get(&sale, bob, &orders[0].payment_id()).await.expect_err("somebody else's");
    assert_eq!(Problem::from_status(&refused).reason(), Reason::PaymentNotFound);

    let mut request = ListPaymentsRequest { page_size: 2, ..Default::default() };
    let first = list(&sale, as_buyer(ann, request.clone())).await?;
    assert_eq!(ids(&first), [orders[2].payment_id(), orders[1].payment_id()]);
    request.page_token = first.next_page_token;
    let of_order = ListPaymentsRequest { order_id: orders[0].id.to_string(), ..request.clone() };
    for of_another_list in [as_buyer(bob, request.clone()), as_operator(request.clone()), as_buyer(ann, of_order)] {
        let refused = list(&sale, of_another_list).await.expect_err("a token of another list");
        assert_eq!(Problem::from_status(&refused).reason(), Reason::InvalidPageToken);
    }
    let second = list(&sale, as_buyer(ann, request)).await?;
    assert_eq!((ids(&second), second.next_page_token.as_str()), (vec![orders[0].payment_id()], ""));

    let all = list(&sale, as_operator(ListPaymentsRequest::default())).await?;
    assert_eq!(all.payments.len(), 4);
    let of_one = ListPaymentsRequest { order_id: other.id.to_string(), ..Default::default() };
    assert_eq!(ids(&list(&sale, as_operator(of_one.clone())).await?), [other.payment_id()]);
    assert!(list(&sale, as_buyer(ann, of_one)).await?.payments.is_empty());
    sale.mesh.stop().await
}
