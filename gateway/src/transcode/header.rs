//! Fields that are read from headers, as `stampede.type.v1.header` names them.

use crate::routes::Rpc;
use http::HeaderMap;
use prost_reflect::{DynamicMessage, Value};
use stampede_status::Problem;

/// Sets the fields whose headers are present. A refusal does not repeat the value of a header.
pub fn apply(rpc: &Rpc, headers: &HeaderMap, message: &mut DynamicMessage) -> Result<(), Problem> {
    for (name, field) in &rpc.headers {
        let refuse = |problem: &str| Problem::invalid_field(field.name(), format!("the header {name} {problem}"));
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(refuse("is given twice"));
        }
        let text = value.to_str().map_err(|_| refuse("has characters that are not ASCII"))?;
        message.set_field(field, Value::String(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        routes::{Endpoint, Lookup, Table},
        transcode::assemble,
    };
    use http::{HeaderValue, Method};
    use std::sync::Arc;

    fn webhook() -> Arc<Rpc> {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let Lookup::Found(route) = table.find(&Method::POST, "/v1/payments:webhook") else { panic!("no route") };
        let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("the gateway's own") };
        Arc::clone(rpc)
    }

    fn field(message: &DynamicMessage, name: &str) -> String {
        message.get_field_by_name(name).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn a_raw_body_and_its_signature_arrive_byte_for_byte() {
        let (rpc, uri) = (webhook(), "/v1/payments:webhook".parse().unwrap());
        let body = "{ \"type\" :\n\"charge.captured\", \"é\": 1.0 }\r\n";
        let mut message = assemble(&rpc, &uri, body.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("stampede-signature", HeaderValue::from_static("t=1,v1=00"));
        apply(&rpc, &headers, &mut message).unwrap();
        assert_eq!((field(&message, "payload").as_str(), field(&message, "signature").as_str()), (body, "t=1,v1=00"));
        assert_eq!(assemble(&rpc, &uri, b"\xff").unwrap_err().field_path(), Some("payload"));
    }

    #[test]
    fn a_header_that_is_missing_leaves_its_field_empty_and_two_are_refused() {
        let (rpc, mut headers) = (webhook(), HeaderMap::new());
        let mut message = DynamicMessage::new(rpc.input.clone());
        apply(&rpc, &headers, &mut message).unwrap();
        assert_eq!(field(&message, "signature"), "");
        for _ in 0..2 {
            headers.append("stampede-signature", HeaderValue::from_static("t=1,v1=00"));
        }
        assert_eq!(apply(&rpc, &headers, &mut message).unwrap_err().field_path(), Some("signature"));
    }
}
