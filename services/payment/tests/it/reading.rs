//! Who sees which payments.

use crate::shop::{Order, Shop};
use anyhow::Result;
use stampede_proto::payment::v1::{GetPaymentRequest, ListPaymentsRequest, ListPaymentsResponse, PaymentState};
use stampede_status::{Problem, Reason};
use stampede_testkit::{as_buyer, as_operator, buyer};
use stampede_vocab::UserId;
use tonic::{Request, Status};

async fn get(shop: &Shop, user: UserId, payment_id: &str) -> Result<String, Status> {
    let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
    let payment = shop.mesh.payment().get_payment(as_buyer(user, request)).await?.into_inner().payment;
    Ok(payment.unwrap_or_default().payment_id)
}

async fn list(shop: &Shop, request: Request<ListPaymentsRequest>) -> Result<ListPaymentsResponse, Status> {
    Ok(shop.mesh.payment().list_payments(request).await?.into_inner())
}

fn ids(page: &ListPaymentsResponse) -> Vec<String> {
    page.payments.iter().map(|payment| payment.payment_id.clone()).collect()
}

#[tokio::test]
async fn a_buyer_sees_their_own_payments_and_an_operator_all() -> Result<()> {
    let shop = Shop::open().await?;
    let (ann, bob) = (buyer(), buyer());
    let orders = ["a", "b", "c"].map(|request| Order::of(ann, request));
    let other = Order::of(bob, "a");
    // One after the other, so that their times differ.
    for order in orders.iter().chain([&other]) {
        shop.pay(order, 1, "pm_card_ok").await?;
        shop.reaches(order, PaymentState::Captured).await;
    }
    assert_eq!(get(&shop, ann, &orders[0].payment_id()).await?, orders[0].payment_id());
    let refused = get(&shop, bob, &orders[0].payment_id()).await.expect_err("somebody else's");
    assert_eq!(Problem::from_status(&refused).reason(), Reason::PaymentNotFound);

    let mut request = ListPaymentsRequest { page_size: 2, ..Default::default() };
    let first = list(&shop, as_buyer(ann, request.clone())).await?;
    assert_eq!(ids(&first), [orders[2].payment_id(), orders[1].payment_id()]);
    request.page_token = first.next_page_token;
    let of_order = ListPaymentsRequest { order_id: orders[0].id.to_string(), ..request.clone() };
    for of_another_list in [as_buyer(bob, request.clone()), as_operator(request.clone()), as_buyer(ann, of_order)] {
        let refused = list(&shop, of_another_list).await.expect_err("a token of another list");
        assert_eq!(Problem::from_status(&refused).reason(), Reason::InvalidPageToken);
    }
    let second = list(&shop, as_buyer(ann, request)).await?;
    assert_eq!((ids(&second), second.next_page_token.as_str()), (vec![orders[0].payment_id()], ""));

    let all = list(&shop, as_operator(ListPaymentsRequest::default())).await?;
    assert_eq!(all.payments.len(), 4);
    let of_one = ListPaymentsRequest { order_id: other.id.to_string(), ..Default::default() };
    assert_eq!(ids(&list(&shop, as_operator(of_one.clone())).await?), [other.payment_id()]);
    assert!(list(&shop, as_buyer(ann, of_one)).await?.payments.is_empty());
    shop.mesh.stop().await
}

#[tokio::test]
async fn bad_input_is_refused_by_its_field() -> Result<()> {
    let shop = Shop::open().await?;
    let page = |page_size, page_token: &str, order_id: &str| {
        as_operator(ListPaymentsRequest { page_size, page_token: page_token.to_owned(), order_id: order_id.to_owned() })
    };
    let unknown = "pay_0000000000000000000000001a";
    let table = [
        (Reason::InvalidField, Some("payment_id"), get(&shop, buyer(), "").await.map(drop)),
        (
            Reason::InvalidField,
            Some("payment_id"),
            get(&shop, buyer(), "ord_0000000000000000000000001a").await.map(drop),
        ),
        (Reason::PaymentNotFound, Some("payment_id"), get(&shop, buyer(), unknown).await.map(drop)),
        (Reason::InvalidField, Some("page_size"), list(&shop, page(-1, "", "")).await.map(drop)),
        (Reason::InvalidField, Some("page_size"), list(&shop, page(101, "", "")).await.map(drop)),
        (Reason::InvalidField, Some("order_id"), list(&shop, page(0, "", unknown)).await.map(drop)),
        (
            Reason::InvalidPageToken,
            Some("page_token"),
            list(&shop, page(0, "orders.1.0000000000000000000000001a", "")).await.map(drop),
        ),
        (Reason::Unauthenticated, None, list(&shop, Request::new(ListPaymentsRequest::default())).await.map(drop)),
    ];
    for (index, (reason, field, answer)) in table.into_iter().enumerate() {
        let status = answer.expect_err("it must be refused");
        let problem = Problem::from_status(&status);
        assert_eq!((problem.reason(), problem.field_path()), (reason, field), "row {index}: {status}");
        assert_eq!(status.code(), reason.code(), "row {index}: {status}");
    }
    shop.mesh.stop().await
}
