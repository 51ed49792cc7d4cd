//! Measures how the crowd parses an order from the gateway, by a type of serde and by way of the contract's descriptor:
//! `cargo bench -p stampede-cli`.

use divan::{Bencher, black_box, counter::BytesCount};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Deserializer;
use stampede_proto::order::v1;

#[path = "../src/simulate/wire.rs"]
#[expect(dead_code, reason = "only one of its types is read here")]
mod wire;

const ORDER: &str = r#"{"order_id":"ord_2x4y6z8e0n9gqvk3m5r7t1c2d0","user_id":"usr_0000000000000000000000001b",
    "event_id":"evt_6zr8ffxwndaart51cqabf0xqbp","state":"ORDER_STATE_FULFILLED","lines":[{"item_id":
    "itm_0000000000000000000000001a","units":2,"unit_price":{"minor_units":"1999","currency":"EUR"},"gift_units":1,
    "title":"Kettle","gift_title":"Tea set"}],
    "subtotal":{"minor_units":"3998","currency":"EUR"},"discount":{"minor_units":"500","currency":"EUR"},
    "total":{"minor_units":"3498","currency":"EUR"},"coupon_id":"cpn_0000000000000000000000001c","arrival":"4711",
    "payment_attempts":1,"pay_deadline":"2026-01-02T03:14:05.000006Z","payment_id":"pay_0000000000000000000000001d",
    "last_decline":"DECLINE_CODE_UNSPECIFIED","goods":[{"item_id":"itm_0000000000000000000000001a",
    "kind":"GOODS_KIND_ITEM","units":2,"grant_time":"2026-01-02T03:04:06Z","title":"Kettle"}],
    "create_time":"2026-01-02T03:04:05.000006Z","update_time":"2026-01-02T03:04:06Z",
    "fulfill_time":"2026-01-02T03:04:06Z","version":"3"}"#;

fn main() {
    divan::main();
}

/// Parses as the crowd does: only the fields that it needs.
#[divan::bench]
fn by_serde(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::of_str(ORDER))
        .bench_local(|| serde_json::from_slice::<wire::Order>(black_box(ORDER.as_bytes())).expect("it is an order"));
}

/// Parses as the gateway reads requests: a dynamic message, which is then encoded and decoded as the contract's own
/// type.
#[divan::bench]
fn by_reflection(bencher: Bencher<'_, '_>) {
    let contract = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).expect("the contract is whole");
    let order = contract.get_message_by_name("stampede.order.v1.Order").expect("the contract has orders");
    bencher.counter(BytesCount::of_str(ORDER)).bench_local(|| {
        let mut json = Deserializer::from_slice(black_box(ORDER.as_bytes()));
        let message = DynamicMessage::deserialize(order.clone(), &mut json).expect("it is an order");
        message.transcode_to::<v1::Order>().expect("it is the contract's order")
    });
}
