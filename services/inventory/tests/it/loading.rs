//! Redis was restarted, and answers LOADING until it has read its data.

use crate::sale::{Sale, level};
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_status::{Problem, Reason};
use stampede_testkit::{OwnRedis, as_order_service, eventually};

#[tokio::test]
async fn nothing_is_granted_while_redis_reads_its_data_and_selling_goes_on_by_itself() {
    let redis = OwnRedis::start(&[]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    let (early, late) = (sale.order([0, 1]), sale.order([0, 1]));
    let arrival = sale.reserved(&early).await.arrival;
    sale.stock_becomes(1, level(2, 1, 0)).await;

    let redis = redis.restart_loading().await.unwrap();
    // The first call finds connections that the restart has closed.
    for _ in 0..3 {
        let request = proto::ReserveRequest { reservations: vec![late.reservation()] };
        let refused = sale.api().reserve(as_order_service(request)).await.unwrap_err();
        let problem = Problem::from_status(&refused);
        assert_eq!(problem.reason(), Reason::Unavailable, "{refused:?}");
        assert!(problem.retry_delay().is_some(), "{refused:?}");
    }
    assert!(redis.is_loading().await, "it has read its data too soon");
    assert_eq!(sale.in_ledger(&late).await, 0);

    redis.finish_loading().await.unwrap();
    let reserved = eventually("the same order gets its unit", || async {
        match sale.reserve(&late).await {
            Outcome::Reserved(reserved) => Some(reserved),
            Outcome::Refusal(refusal) if refusal.reason() == RefusalReason::NotReady => None,
            Outcome::Refusal(refusal) => panic!("refused: {refusal:?}"),
        }
    })
    .await;
    assert!(reserved.arrival > arrival, "{reserved:?} after {arrival}");
    sale.stock_becomes(1, level(1, 2, 0)).await;
    assert_eq!(sale.reserved(&early).await.arrival, arrival);
}
