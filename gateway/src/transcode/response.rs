//! Messages as JSON, by the JSON mapping of protobuf with the field names of the contract.
//!
//! Zeroes, empty texts and empty lists are written, so that readers need no defaults; unset messages are omitted.

use crate::routes::Rpc;
use prost_reflect::{DynamicMessage, SerializeOptions, Value};
use stampede_status::Problem;

/// The options of the library.
pub const OPTIONS: SerializeOptions = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);

/// Returns the JSON text of an encoded answer, or of the one field of it that the rule names.
pub fn of_bytes(rpc: &Rpc, answer: &[u8]) -> Result<Vec<u8>, Problem> {
    match rpc.writer.write(answer) {
        Some(json) => Ok(json),
        None => {
            // One that cannot be read is a fault of the service.
            let message = DynamicMessage::decode(rpc.output.clone(), answer).map_err(Problem::internal_error)?;
            to_json(rpc, &message)
        }
    }
}

/// Returns the same for an answer that is decoded already.
pub fn to_json(rpc: &Rpc, message: &DynamicMessage) -> Result<Vec<u8>, Problem> {
    let Some(field) = &rpc.response_body else { return write(message) };
    if !message.has_field(field) {
        return Err(Problem::internal_error(format!("the answer has no {}", field.full_name())));
    }
    match message.get_field(field).as_ref() {
        Value::Message(inner) => write(inner),
        other => Err(Problem::internal_error(format!("{} is not a message: {other:?}", field.full_name()))),
    }
}

fn write(message: &DynamicMessage) -> Result<Vec<u8>, Problem> {
    let mut json = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::new(&mut json);
    message.serialize_with_options(&mut serializer, &OPTIONS).map_err(Problem::internal_error)?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Lookup, Table};
    use http::Method;
    use prost::Message;
    use serde_json::json;
    use stampede_proto::{coupon::v1 as coupon, inventory::v1 as inventory, r#type::v1::Money};
    use stampede_status::Reason;

    fn rendered(method: Method, path: &str, answer: impl Message) -> serde_json::Value {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&method, path) else { panic!("{path} has no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("{path} is the gateway's own") };
        let message = DynamicMessage::decode(rpc.output.clone(), answer.encode_to_vec().as_slice()).unwrap();
        serde_json::from_slice(&to_json(rpc, &message).unwrap()).unwrap()
    }

    #[test]
    fn only_the_named_field_is_sent_with_its_zeroes() {
        let coupon = coupon::Coupon {
            coupon_id: "cpn_1".into(),
            state: coupon::CouponState::Issued.into(),
            discount: Some(Money { minor_units: 500, currency: "EUR".into() }),
            ..coupon::Coupon::default()
        };
        let answer = coupon::ClaimCouponResponse { coupon: Some(coupon) };
        let expected = json!({
            "coupon_id": "cpn_1",
            "campaign_id": "",
            "user_id": "",
            "rank": 0,
            "state": "COUPON_STATE_ISSUED",
            "discount": {"minor_units": "500", "currency": "EUR"},
            "order_id": "",
        });
        assert_eq!(rendered(Method::POST, "/v1/campaigns/cmp_1:claim", answer), expected);
    }

    #[test]
    fn an_answer_without_its_named_field_is_a_fault_of_the_service() {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&Method::GET, "/v1/orders/ord_1") else { panic!("no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("the gateway's own") };
        let problem = to_json(rpc, &DynamicMessage::new(rpc.output.clone())).unwrap_err();
        assert_eq!(problem.reason(), Reason::Internal);
    }

    #[test]
    fn without_a_named_field_all_is_sent() {
        let answer = inventory::GetStockResponse::default();
        assert_eq!(rendered(Method::GET, "/v1/events/evt_1/stock", answer), json!({"stocks": []}));
    }
}
