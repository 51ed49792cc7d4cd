//! An HTTP request as the message that its method takes.

use super::{json, query, text};
use crate::routes::Rpc;
use http::Uri;
use prost_reflect::DynamicMessage;
use stampede_status::Problem;

/// Puts body, query and path together.
pub fn assemble(rpc: &Rpc, uri: &Uri, body: &[u8]) -> Result<DynamicMessage, Problem> {
    let mut message = read_body(rpc, body)?;
    query::apply(rpc, uri.query().unwrap_or_default(), &mut message)?;
    apply_path(rpc, uri.path(), &mut message)?;
    Ok(message)
}

fn read_body(rpc: &Rpc, body: &[u8]) -> Result<DynamicMessage, Problem> {
    if rpc.has_body { json::read(&rpc.input, body) } else { Ok(DynamicMessage::new(rpc.input.clone())) }
}

/// The path is what says which resource is meant; a body that says another is a mistake of the caller.
fn apply_path(rpc: &Rpc, path: &str, message: &mut DynamicMessage) -> Result<(), Problem> {
    if let Some(variable) = &rpc.variable {
        let field = &variable.field;
        let in_body = text::get(message, field);
        text::set(message, field, &text::decode(field, variable.text(path))?)?;
        if in_body.is_some() && in_body != text::get(message, field) {
            return Err(Problem::invalid_field(field.to_string(), "is not the one in the path"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Endpoint, Lookup, Table};
    use http::Method;
    use prost_reflect::SerializeOptions;
    use serde_json::json;
    use stampede_status::Reason;

    fn assembled(method: Method, uri: &str, body: &str) -> Result<serde_json::Value, Problem> {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let uri: Uri = uri.parse().unwrap();
        let Lookup::Found(route) = table.find(&method, uri.path()) else { panic!("{uri} has no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("{uri} is the gateway's own") };
        let message = assemble(rpc, &uri, body.as_bytes())?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        Ok(message.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
    }

    #[test]
    fn requests_are_put_together_from_body_query_and_path() {
        for (method, uri, body, expected) in [
            (Method::GET, "/v1/orders/ord_1", "", json!({"order_id": "ord_1"})),
            (Method::GET, "/v1/orders/a%2Fb%20c", "", json!({"order_id": "a/b c"})),
            (Method::GET, "/v1/orders?page_size=7&event_id=evt_1", "", json!({"page_size": 7, "event_id": "evt_1"})),
            (Method::GET, "/v1/orders?pageSize=7&", "", json!({"page_size": 7})),
            (Method::GET, "/v1/orders?page_token=a+b%2Bc", "", json!({"page_token": "a b+c"})),
            (Method::GET, "/v1/events:watch?event_ids=a&event_ids=b", "", json!({"event_ids": ["a", "b"]})),
            (Method::GET, "/v1/events/evt_1/stock:watch", "", json!({"event_id": "evt_1"})),
            (Method::POST, "/v1/orders/ord_1:cancel", "", json!({"order_id": "ord_1"})),
            (Method::POST, "/v1/orders/ord_1:cancel", " {\n} ", json!({"order_id": "ord_1"})),
            (
                Method::POST,
                "/v1/orders/ord_1:pay",
                r#"{"request_id":"r"}"#,
                json!({"order_id": "ord_1", "request_id": "r"}),
            ),
            (Method::POST, "/v1/orders/ord_1:cancel", r#"{"orderId":"ord_1"}"#, json!({"order_id": "ord_1"})),
            (
                Method::POST,
                "/v1/orders",
                r#"{"lines":[{"item_id":"itm_1","units":2}],"max_total":{"minor_units":"9007199254740993","currency":"EUR"}}"#,
                json!({
                    "lines": [{"item_id": "itm_1", "units": 2}],
                    "max_total": {"minor_units": "9007199254740993", "currency": "EUR"},
                }),
            ),
            (
                Method::POST,
                "/v1/orders",
                r#"{"eventId":"evt_1","maxTotal":{"minorUnits":5,"currency":"EUR"}}"#,
                json!({"event_id": "evt_1", "max_total": {"minor_units": "5", "currency": "EUR"}}),
            ),
        ] {
            assert_eq!(assembled(method, uri, body).unwrap(), expected, "{uri} {body}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        use Reason::{InvalidField, MalformedJson, UnknownField};
        for (method, uri, body, reason, field) in [
            (Method::GET, "/v1/orders?nothing=1", "", UnknownField, Some("nothing")),
            (Method::GET, "/v1/orders?page_size.x=1", "", UnknownField, Some("page_size.x")),
            (Method::GET, "/v1/orders?page_size=many", "", InvalidField, Some("page_size")),
            (Method::GET, "/v1/orders?page_size=99999999999", "", InvalidField, Some("page_size")),
            (Method::GET, "/v1/orders?page_size=1&pageSize=2", "", InvalidField, Some("page_size")),
            (Method::GET, "/v1/orders?event_id=%FF", "", InvalidField, Some("event_id")),
            (Method::GET, "/v1/orders/%FF", "", InvalidField, Some("order_id")),
            (Method::GET, "/v1/orders/ord_1?order_id=ord_2", "", InvalidField, Some("order_id")),
            (Method::POST, "/v1/orders?event_id=evt_1", "{}", InvalidField, Some("event_id")),
            (Method::POST, "/v1/orders?nothing=1", "{}", UnknownField, Some("nothing")),
            (Method::POST, "/v1/orders/ord_1:cancel", r#"{"order_id":"ord_2"}"#, InvalidField, Some("order_id")),
            (Method::POST, "/v1/orders", "{", MalformedJson, None),
            (Method::POST, "/v1/orders", "{} {}", MalformedJson, None),
            (Method::POST, "/v1/orders", "[]", MalformedJson, None),
            (Method::POST, "/v1/orders", "null", MalformedJson, None),
            (Method::POST, "/v1/orders", r#"{"units":1}"#, UnknownField, Some("units")),
            (Method::POST, "/v1/orders", r#"{"event_id":7}"#, InvalidField, Some("event_id")),
            (Method::POST, "/v1/orders", r#"{"lines":{}}"#, InvalidField, Some("lines")),
            (Method::POST, "/v1/orders", r#"{"lines":[{},7]}"#, InvalidField, Some("lines[1]")),
            (
                Method::POST,
                "/v1/orders",
                r#"{"lines":[{"units":1},{"units":"x"}]}"#,
                InvalidField,
                Some("lines[1].units"),
            ),
            (Method::POST, "/v1/orders", r#"{"lines":[{"units":1.5}]}"#, InvalidField, Some("lines[0].units")),
            (Method::POST, "/v1/orders", r#"{"lines":[{"unit":1}]}"#, UnknownField, Some("lines[0].unit")),
            (Method::POST, "/v1/orders", r#"{"maxTotal":{"minor":1}}"#, UnknownField, Some("max_total.minor")),
            (Method::POST, "/v1/events", r#"{"opens_at":"tomorrow"}"#, InvalidField, Some("opens_at")),
        ] {
            let problem = assembled(method, uri, body).expect_err(uri);
            assert_eq!((problem.reason(), problem.field_path()), (reason, field), "{uri} {body}: {problem}");
        }
    }

    #[test]
    fn malformed_json_is_told_with_its_place() {
        let problem = assembled(Method::POST, "/v1/orders", "{\n  \"event_id\": oops}").unwrap_err();
        assert_eq!((problem.metadata()["line"].as_str(), problem.metadata()["column"].as_str()), ("2", "15"));
    }
}
