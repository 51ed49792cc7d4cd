//! Redis comes back with less than it had: by a power cut, from an earlier copy, on another server.

use crate::sale::{Level, Sale, level};
use stampede_proto::inventory::v1::{RefusalReason, reservation_result::Outcome};
use stampede_testkit::OwnRedis;

#[tokio::test]
async fn what_was_sold_after_the_copy_is_not_sold_again_and_arrivals_go_on() {
    let redis = OwnRedis::durable().await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    let early = sale.order([0, 1]);
    sale.reserved(&early).await;
    sale.stock_becomes(1, level(2, 1, 0)).await;
    let copy = redis.copy().unwrap();
    let late = [sale.order([0, 1]), sale.order([0, 1])];
    let mut arrivals = Vec::new();
    for order in &late {
        arrivals.push(sale.reserved(order).await.arrival);
    }
    sale.stock_becomes(1, level(0, 3, 0)).await;

    let _redis = redis.restart_with(copy).await.unwrap();
    // By the copy there are two units left, and the buyers of the late orders have nothing.
    let stranger = sale.order([0, 1]);
    loop {
        match sale.reserve(&stranger).await {
            Outcome::Refusal(refusal) if refusal.reason() == RefusalReason::NotReady => {}
            Outcome::Refusal(refusal) => {
                assert_eq!(refusal.reason(), RefusalReason::SoldOut);
                break;
            }
            Outcome::Reserved(reserved) => panic!("sold twice: {reserved:?}"),
        }
    }
    sale.stock_becomes(1, level(0, 3, 0)).await;
    for (order, arrival) in late.iter().zip(&arrivals) {
        assert_eq!(sale.reserved(order).await.arrival, *arrival, "a repeat is known though Redis had lost it");
        assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    }
    let next = sale.reserved(&sale.order([1, 0])).await;
    assert!(next.arrival > arrivals[1], "a place of arrival is never given twice");
    sale.stock_becomes(0, Level { left: 4, committed: 1, held: 0, left_gifts: 1 }).await;
}
