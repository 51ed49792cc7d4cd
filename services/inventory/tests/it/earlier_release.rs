//! What an order service of an earlier release says, which told of an order before the ledger was asked.

use crate::sale::{Answer, Order, Sale, Step, level, seconds_from_now};
use prost::Message;
use stampede_proto::{message::v1 as messages, r#type::v1::Money};
use stampede_vocab::ItemId;

/// The message of a release whose orders could not be paid at once: it has no `pay_deadline`.
fn placed(order: &Order) -> (&'static str, Vec<u8>) {
    let line = |(item, units): &(ItemId, i32)| messages::OrderedLine {
        item_id: item.to_string(),
        units: *units,
        gift_units: 0,
    };
    let placed = messages::OrderPlaced {
        order_id: order.order_id.to_string(),
        user_id: order.buyer.to_string(),
        event_id: order.event_id.to_string(),
        lines: order.lines.iter().map(line).collect(),
        coupon_id: String::new(),
        total: Some(Money { minor_units: 1_999, currency: "EUR".into() }),
        arrival: 1,
        create_time: Some(seconds_from_now(0)),
        pay_deadline: None,
    };
    ("stampede.message.v1.OrderPlaced", placed.encode_to_vec())
}

#[tokio::test]
async fn an_order_that_is_told_of_takes_nothing_twice_and_is_no_dead_letter() {
    let sale = Sale::open().await;
    let (reserved, pending) = (sale.order([0, 1]), sale.order([0, 1]));
    sale.reserved(&reserved).await;
    // Of the second one the ledger was not asked yet. What is cancelled behind a dead letter would give nothing back.
    for order in [&reserved, &pending] {
        sale.order_service_says(order, &[placed(order), order.message(Step::Cancelled)]).await;
    }
    sale.stock_becomes(1, level(3, 0, 0)).await;
    assert_eq!((sale.in_ledger(&reserved).await, sale.answers(&reserved).await), (0, Vec::new()));
    // That it is answered shows that what was said before it is no dead letter.
    sale.order_says(&pending, &[Step::PaidLate]).await;
    assert_eq!(sale.answered(&pending, 1).await, [Answer::Committed]);
    let parked: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM inbox_parked")
        .fetch_one(&mut *sale.inventory_db.acquire().await.unwrap())
        .await
        .unwrap();
    assert_eq!(parked, 0);
}
