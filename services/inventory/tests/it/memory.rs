//! A Redis with little memory left.

use crate::sale::{Sale, reason};
use stampede_proto::inventory::v1 as proto;
use stampede_status::Reason;
use stampede_testkit::{OwnRedis, as_operator, buyer};
use stampede_vocab::{EventId, ItemId, RequestId};

#[tokio::test]
async fn nothing_new_is_staged_and_what_is_there_goes_on_being_sold() {
    let redis = OwnRedis::start(&[("maxmemory", "50mb")]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    redis.fill(45).await.unwrap();

    let event_id = EventId::derive(buyer(), &RequestId::parse("another").unwrap());
    let mut another = proto::StageStockRequest { event_id: event_id.to_string(), ..sale.shelf(1) };
    for (item, index) in another.items.iter_mut().zip(0..) {
        item.item_id = ItemId::derive(event_id, index).to_string();
    }
    let refused = sale.api().stage_stock(as_operator(another.clone())).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Overloaded);
    sale.reserved(&sale.order([1, 1])).await;
    // An event that was there before may move, and be put back.
    sale.api().stage_stock(as_operator(sale.shelf(2))).await.unwrap();

    redis.empty().await.unwrap();
    sale.api().stage_stock(as_operator(another)).await.unwrap();
}
