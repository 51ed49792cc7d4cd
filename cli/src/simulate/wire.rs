//! The JSON messages of the gateway, with only the fields that a buyer or the report needs.
//!
//! The generated messages of the contract neither read nor write JSON, and a converter for them costs more than the
//! crowd should (`docs/decisions/0015`). A test compares the fields here with the contract.

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use stampede_proto::order::v1::OrderState;
use stampede_vocab::{CampaignId, CouponId, EventId, ItemId, Money, OrderId, Timestamp};
use std::collections::BTreeMap;

#[derive(Serialize)]
pub struct CreateEvent<'a> {
    pub request_id: &'a str,
    pub name: &'a str,
    pub open_time: String,
    pub close_time: String,
    pub items: Vec<NewItem<'a>>,
}

/// An item of an event to be created.
#[derive(Serialize)]
pub struct NewItem<'a> {
    pub title: &'a str,
    pub unit_price: Money,
    pub total_units: u32,
    pub limit_per_buyer: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gift: Option<NewGift<'a>>,
}

#[derive(Serialize)]
pub struct NewGift<'a> {
    pub title: &'a str,
    pub total_units: u32,
}

#[derive(Serialize)]
pub struct CreateCampaign<'a> {
    pub request_id: &'a str,
    pub name: &'a str,
    pub quota: u32,
    pub discount: Money,
    pub event_id: EventId,
    pub open_time: String,
    pub close_time: String,
}

/// Request of ClaimCoupon; the campaign is in the path.
#[derive(Serialize)]
pub struct ClaimCoupon<'a> {
    pub request_id: &'a str,
}

#[derive(Serialize)]
pub struct PlaceOrder<'a> {
    pub request_id: &'a str,
    pub event_id: EventId,
    pub lines: Vec<NewLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon_id: Option<CouponId>,
}

#[derive(Serialize)]
pub struct NewLine {
    pub item_id: ItemId,
    pub units: u32,
}

/// Request of PayOrder; the order is in the path.
#[derive(Serialize)]
pub struct PayOrder<'a> {
    pub request_id: &'a str,
    pub payment_method: &'a str,
}

/// Request of CancelOrder; the order is in the path.
#[derive(Serialize)]
pub struct CancelOrder<'a> {
    pub request_id: &'a str,
}

/// A request without fields.
#[derive(Serialize)]
pub struct Nothing {}

/// Answer to a request for a token.
#[derive(Deserialize)]
pub struct TokenPair {
    pub access_token: String,
}

#[derive(Deserialize)]
pub struct Event {
    pub event_id: EventId,
    #[serde(deserialize_with = "time")]
    pub open_time: Timestamp,
    #[serde(default, deserialize_with = "time_if_any")]
    pub actual_open_time: Option<Timestamp>,
    pub items: Vec<EventItem>,
}

#[derive(Deserialize)]
pub struct EventItem {
    pub item_id: ItemId,
}

#[derive(Deserialize)]
pub struct Campaign {
    pub campaign_id: CampaignId,
}

#[derive(Deserialize)]
pub struct Coupon {
    pub coupon_id: CouponId,
}

#[derive(Deserialize)]
pub struct Stocks {
    pub stocks: Vec<Stock>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Stock {
    pub item_id: ItemId,
    pub total_units: u32,
    pub left_units: u32,
    pub committed_units: u32,
    pub held_units: u32,
    pub left_gift_units: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Order {
    pub order_id: OrderId,
    #[serde(deserialize_with = "order_state")]
    pub state: OrderState,
    #[serde(deserialize_with = "whole")]
    pub arrival: i64,
    #[serde(deserialize_with = "whole")]
    pub version: i64,
    #[serde(deserialize_with = "time")]
    pub create_time: Timestamp,
    #[serde(deserialize_with = "time")]
    pub update_time: Timestamp,
    #[serde(default, deserialize_with = "time_if_any")]
    pub pay_deadline: Option<Timestamp>,
    #[serde(default, deserialize_with = "time_if_any")]
    pub fulfill_time: Option<Timestamp>,
}

impl Order {
    /// Returns when it could first be paid, as long as nothing has happened to it since.
    pub fn payable_since(&self) -> Option<Timestamp> {
        (self.state == OrderState::AwaitingPayment && self.version == 1).then_some(self.create_time)
    }

    /// Returns whether its time to be paid was over when it last changed.
    pub fn is_overdue(&self) -> bool {
        self.pay_deadline.is_some_and(|deadline| self.update_time >= deadline)
    }
}

#[derive(Deserialize)]
pub struct OrderPage {
    pub orders: Vec<Order>,
    pub next_page_token: String,
}

/// The format of all errors.
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    pub reason: String,
    pub detail: String,
    pub trace_id: String,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    pub field: Option<String>,
    pub retry_after_ms: Option<u64>,
}

/// Returns a time as JSON has it.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).expect("the times of a sale are within centuries").to_string()
}

fn parse_time<E: Error>(text: &str) -> Result<Timestamp, E> {
    let parsed: jiff::Timestamp = text.parse().map_err(E::custom)?;
    Ok(Timestamp::from_micros(parsed.as_microsecond()))
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    parse_time(<&str>::deserialize(deserializer)?)
}

fn time_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::<&str>::deserialize(deserializer)?.map(parse_time).transpose()
}

/// Reads a 64-bit number, which is a string in JSON.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    <&str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn order_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OrderState, D::Error> {
    let name = <&str>::deserialize(deserializer)?;
    OrderState::from_str_name(name).ok_or_else(|| D::Error::custom(format!("no order state: {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::{DescriptorPool, MessageDescriptor};
    use serde::{
        de::{DeserializeOwned, Visitor},
        forward_to_deserialize_any,
    };

    const ORDER: &str = r#"{"order_id":"ord_2x4y6z8e0n9gqvk3m5r7t1c2d0","user_id":"usr_1",
        "state":"ORDER_STATE_FULFILLED","lines":[{"units":1}],"arrival":"17","version":"4",
        "create_time":"2026-01-02T03:04:05.000006Z","update_time":"2026-01-02T03:04:06Z",
        "fulfill_time":"2026-01-02T03:04:06Z"}"#;
    const EVENT: &str = r#"{"event_id":"evt_2x4y6z8e0n9gqvk3m5r7t1c2d0","state":"EVENT_STATE_SCHEDULED",
        "open_time":"2026-01-02T03:04:05Z","items":[]}"#;

    fn message(name: &str) -> MessageDescriptor {
        let contract = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap();
        contract.get_message_by_name(&format!("stampede.{name}")).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Fails to deserialize a struct, with the names of its fields as the error.
    struct NamesOfFields;

    impl<'de> Deserializer<'de> for NamesOfFields {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            panic!("only structs are read")
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom(fields.join(" ")))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn assert_has_fields_of<T: DeserializeOwned>(name: &str) {
        let message = message(name);
        let fields = T::deserialize(NamesOfFields).err().expect("there is nothing to read").to_string();
        assert!(!fields.is_empty());
        for field in fields.split(' ') {
            assert!(message.get_field_by_name(field).is_some(), "{name} has no field {field}");
        }
    }

    #[test]
    fn the_contract_has_every_field_that_is_read() {
        assert_has_fields_of::<Event>("event.v1.Event");
        assert_has_fields_of::<EventItem>("event.v1.Item");
        assert_has_fields_of::<Campaign>("coupon.v1.Campaign");
        assert_has_fields_of::<Coupon>("coupon.v1.Coupon");
        assert_has_fields_of::<Stocks>("inventory.v1.GetStockResponse");
        assert_has_fields_of::<Stock>("inventory.v1.Stock");
        assert_has_fields_of::<Order>("order.v1.Order");
        assert_has_fields_of::<OrderPage>("order.v1.ListOrdersResponse");
    }

    #[test]
    fn the_answers_of_these_tests_are_messages_of_the_contract() {
        for (name, text) in [("order.v1.Order", ORDER), ("event.v1.Event", EVENT)] {
            let mut json = serde_json::Deserializer::from_str(text);
            prost_reflect::DynamicMessage::deserialize(message(name), &mut json).unwrap();
        }
    }

    #[test]
    fn an_order_is_read_as_the_gateway_writes_it() {
        let order: Order = serde_json::from_slice(ORDER.as_bytes()).unwrap();
        assert_eq!((order.state, order.arrival, order.version), (OrderState::Fulfilled, 17, 4));
        assert_eq!(order.fulfill_time, Some(order.update_time));
        assert_eq!(rfc3339(order.create_time), "2026-01-02T03:04:05.000006Z");
    }

    #[test]
    fn what_is_unset_may_be_left_out() {
        let event: Event = serde_json::from_slice(EVENT.as_bytes()).unwrap();
        assert_eq!(event.actual_open_time, None);
    }
}
