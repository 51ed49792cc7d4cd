//! Measures reading and writing JSON by descriptors, as the gateway does for each call: `cargo bench -p
//! stampede-gateway`. The gateway's own modules are private, so this calls the library: answers are written by the same
//! function with the same options, and requests are read by what the gateway's own reader is to be compared with.

use divan::{Bencher, black_box, counter::BytesCount};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Deserializer, Serializer};
use stampede_proto::{
    order::v1::{Order, OrderLine, OrderState},
    r#type::v1::Money,
};

const PLACE_ORDER: &str = r#"{"request_id":"01985f2e-7c11-7d52-9c1e-2f6a0d0f3b77",
    "event_id":"evt_6zr8ffxwndaart51cqabf0xqbp","lines":[{"item_id":"itm_0000000000000000000000001a","units":2},
    {"item_id":"itm_0000000000000000000000001b","units":1}],"coupon_id":"cpn_0000000000000000000000001c"}"#;

fn main() {
    divan::main();
}

fn descriptor(name: &str) -> MessageDescriptor {
    let contract = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).expect("the contract is whole");
    contract.get_message_by_name(name).expect("the contract has the message")
}

/// A request: from JSON to what goes to the service.
#[divan::bench]
fn place_order_from_json(bencher: Bencher<'_, '_>) {
    let request = descriptor("stampede.order.v1.PlaceOrderRequest");
    bencher.counter(BytesCount::of_str(PLACE_ORDER)).bench_local(|| {
        let mut json = Deserializer::from_slice(black_box(PLACE_ORDER.as_bytes()));
        DynamicMessage::deserialize(request.clone(), &mut json).expect("it is a request").encode_to_vec()
    });
}

/// An answer: from what comes from the service to JSON.
#[divan::bench]
fn order_to_json(bencher: Bencher<'_, '_>) {
    let answer = descriptor("stampede.order.v1.Order");
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    let encoded = order().encode_to_vec();
    bencher.counter(BytesCount::new(encoded.len())).bench_local(|| {
        let message = DynamicMessage::decode(answer.clone(), black_box(encoded.as_slice())).expect("it is an order");
        let mut json = Vec::with_capacity(512);
        message.serialize_with_options(&mut Serializer::new(&mut json), &options).expect("it can be written");
        json
    });
}

fn order() -> Order {
    let eur = |minor_units| Some(Money { minor_units, currency: "EUR".to_owned() });
    let line = |item_id: &str, units| OrderLine {
        item_id: item_id.to_owned(),
        units,
        unit_price: eur(1_999),
        gift_units: 1,
        title: "Kettle".to_owned(),
        gift_title: "Tea set".to_owned(),
    };
    Order {
        order_id: "ord_2x4y6z8e0n9gqvk3m5r7t1c2d0".to_owned(),
        user_id: "usr_0000000000000000000000001b".to_owned(),
        event_id: "evt_6zr8ffxwndaart51cqabf0xqbp".to_owned(),
        state: OrderState::AwaitingPayment.into(),
        lines: vec![line("itm_0000000000000000000000001a", 2), line("itm_0000000000000000000000001b", 1)],
        subtotal: eur(5_997),
        discount: eur(500),
        total: eur(5_497),
        arrival: 4_711,
        version: 1,
        ..Order::default()
    }
}
