//! The headers of a message: CloudEvents in binary mode, and the W3C trace context.

use crate::rows::Row;
use rdkafka::message::{Header, OwnedHeaders};

/// Returns the headers of `message`, written by the service `source` (such as `/stampede/order`). With `row_ids` its id
/// is the number of its row.
pub fn of(message: &Row, source: &str, row_ids: bool) -> OwnedHeaders {
    let time = rfc3339(message.created_us);
    // A row of the previous version has no message id.
    let own = message.message_id.clone().filter(|_| !row_ids);
    let id = own.unwrap_or_else(|| message.id.to_string());
    let headers = OwnedHeaders::new_with_capacity(8)
        .insert(text("ce_specversion", "1.0"))
        .insert(text("ce_id", &id))
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
