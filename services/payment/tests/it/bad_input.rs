//! Bad input gets the right reason and names its field. (That of the provider's notices is in `webhooks.rs`.)

use crate::{
    reading::{get, list},
    sale::Sale,
};
use anyhow::Result;
use stampede_proto::payment::v1::ListPaymentsRequest;
use stampede_status::{Problem, Reason};
use stampede_testkit::{as_operator, buyer};
use tonic::Request;

#[tokio::test]
async fn bad_input_is_refused_by_its_field() -> Result<()> {
    let sale = Sale::open().await?;
    let page = |page_size, page_token: &str, order_id: &str| {
        as_operator(ListPaymentsRequest { page_size, page_token: page_token.to_owned(), order_id: order_id.to_owned() })
    };
    let unknown = "pay_0000000000000000000000001a";
    let table = [
        (Reason::InvalidField, Some("payment_id"), get(&sale, buyer(), "").await.map(drop)),
        (
            Reason::InvalidField,
            Some("payment_id"),
            get(&sale, buyer(), "ord_0000000000000000000000001a").await.map(drop),
        ),
        (Reason::PaymentNotFound, Some("payment_id"), get(&sale, buyer(), unknown).await.map(drop)),
        (Reason::InvalidField, Some("page_size"), list(&sale, page(-1, "", "")).await.map(drop)),
        (Reason::InvalidField, Some("order_id"), list(&sale, page(0, "", unknown)).await.map(drop)),
        (
            Reason::InvalidPageToken,
            Some("page_token"),
            list(&sale, page(0, "orders.1.0000000000000000000000001a", "")).await.map(drop),
        ),
        (Reason::Unauthenticated, None, list(&sale, Request::new(ListPaymentsRequest::default())).await.map(drop)),
    ];
    for (index, (reason, field, answer)) in table.into_iter().enumerate() {
        let status = answer.expect_err("it must be refused");
        let problem = Problem::from_status(&status);
        assert_eq!((problem.reason(), problem.field_path()), (reason, field), "row {index}: {status}");
        assert_eq!(status.code(), reason.code(), "row {index}: {status}");
    }
    sale.mesh.stop().await
}
