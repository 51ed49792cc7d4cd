//! The headers of a message: CloudEvents in binary mode, and the W3C trace context.

use crate::rows::Unsent;
use rdkafka::message::{Header, OwnedHeaders};

/// Headers of `message`, written by the service `source` (such as `/stampede/order`).
pub fn of(message: &Unsent, source: &str) -> OwnedHeaders {
    let time = rfc3339(message.created_us);
    let headers = OwnedHeaders::new_with_capacity(8)
        .insert(text("ce_specversion", "1.0"))
        .insert(text("ce_id", &message.id.to_string()))
        .insert(text("ce_source", source))
        .insert(text("ce_type", &message.message_type))
        .insert(text("ce_time", &time))
        .insert(text("ce_sequence", &message.aggregate_version.to_string()))
        .insert(text("content-type", "application/protobuf"));
    match &message.traceparent {
        Some(parent) => headers.insert(text("traceparent", parent)),
        None => headers,
    }
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a [u8]> {
    Header { key, value: Some(value.as_bytes()) }
}

fn rfc3339(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(super::rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
    }
}
