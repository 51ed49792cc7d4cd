//! Measures reading and writing JSON, as the gateway does for each call: `cargo bench -p stampede-gateway`.

use divan::{Bencher, black_box, counter::BytesCount};
use http::Method;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Deserializer;
use stampede_gateway::transcoding::Transcoding;
use stampede_proto::{
    coupon::v1::{ClaimCouponResponse, Coupon, CouponState},
    order::v1::{Order, OrderLine, OrderState, PlaceOrderResponse},
    r#type::v1::Money,
};

const ORDERS: &str = "/v1/orders";
const PLACE_ORDER: &str = r#"{"request_id":"01985f2e-7c11-7d52-9c1e-2f6a0d0f3b77",
    "event_id":"evt_6zr8ffxwndaart51cqabf0xqbp","lines":[{"item_id":"itm_0000000000000000000000001a","units":2},
    {"item_id":"itm_0000000000000000000000001b","units":1}],"coupon_id":"cpn_0000000000000000000000001c"}"#;

const CLAIMS: &str = "/v1/campaigns/cmp_0000000000000000000000001e:claim";
const CLAIM_COUPON: &str = r#"{"request_id":"01985f2e-7c11-7d52-9c1e-2f6a0d0f3b77"}"#;

fn main() {
    divan::main();
}

fn posted(path: &'static str) -> Transcoding {
    Transcoding::of(&Method::POST, path).expect("the contract has the route")
}

/// Measures a request: from JSON to the message for the service.
fn read(bencher: Bencher<'_, '_>, path: &'static str, body: &str) {
    let route = posted(path);
    bencher
        .counter(BytesCount::of_str(body))
        .bench_local(|| route.request(black_box(body.as_bytes())).expect("it is a request"));
}

/// Measures an answer: from the message of the service to JSON.
fn write(bencher: Bencher<'_, '_>, path: &'static str, answer: &impl Message) {
    let (route, answer) = (posted(path), answer.encode_to_vec());
    bencher
        .counter(BytesCount::new(answer.len()))
        .bench_local(|| route.answer(black_box(&answer)).expect("it can be written"));
}

#[divan::bench]
fn place_order_from_json(bencher: Bencher<'_, '_>) {
    read(bencher, ORDERS, PLACE_ORDER);
}

/// Measures the same by the library alone, which neither names the field at fault nor refuses one that is given twice.
#[divan::bench]
fn place_order_from_json_by_library(bencher: Bencher<'_, '_>) {
    let contract = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).expect("the contract is whole");
    let request = contract.get_message_by_name("stampede.order.v1.PlaceOrderRequest").expect("the contract has it");
    bencher.counter(BytesCount::of_str(PLACE_ORDER)).bench_local(|| {
        let mut json = Deserializer::from_slice(black_box(PLACE_ORDER.as_bytes()));
        DynamicMessage::deserialize(request.clone(), &mut json).expect("it is a request").encode_to_vec()
    });
}

#[divan::bench]
fn claim_coupon_from_json(bencher: Bencher<'_, '_>) {
    read(bencher, CLAIMS, CLAIM_COUPON);
}

#[divan::bench]
fn order_to_json(bencher: Bencher<'_, '_>) {
    write(bencher, ORDERS, &PlaceOrderResponse { order: Some(order()) });
}

#[divan::bench]
fn coupon_to_json(bencher: Bencher<'_, '_>) {
    write(bencher, CLAIMS, &ClaimCouponResponse { coupon: Some(coupon()) });
}

fn eur(minor_units: i64) -> Option<Money> {
    Some(Money { minor_units, currency: "EUR".to_owned() })
}

fn order() -> Order {
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

fn coupon() -> Coupon {
    Coupon {
        coupon_id: "cpn_0000000000000000000000001c".to_owned(),
        campaign_id: "cmp_0000000000000000000000001e".to_owned(),
        user_id: "usr_0000000000000000000000001b".to_owned(),
        rank: 712,
        state: CouponState::Issued.into(),
        discount: eur(500),
        ..Coupon::default()
    }
}
