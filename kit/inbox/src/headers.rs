//! The headers of a record, kept as they came.

use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use serde::{Deserialize, Serialize};

/// Every header of a record, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Option<Vec<u8>>)>);

/// A header as a dead letter stores it: as text where it is text, in hexadecimal digits where it is not.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Headers {
    /// Those of this record.
    pub(crate) fn of(record: &BorrowedMessage<'_>) -> Self {
        let all = record.headers().into_iter().flat_map(|headers| headers.iter());
        Self(all.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect())
    }

    /// The first header of this name, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> String {
        let all: Vec<Stored> = self.0.iter().map(|(key, value)| stored(key, value.as_deref())).collect();
        serde_json::to_string(&all).expect("texts are JSON")
    }

    /// Parses the output of [`Headers::to_json`]. Fails for anything else.
    pub(crate) fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let all: Vec<Stored> = serde_json::from_str(json)?;
        Ok(Self(all.into_iter().map(kept).collect()))
    }

    /// As Kafka's client sends them.
    pub(crate) fn to_kafka(&self) -> OwnedHeaders {
        self.0.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_deref() }))
    }
}

fn stored(key: &str, value: Option<&[u8]>) -> Stored {
    let text = value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
    let hex = value.filter(|_| text.is_none()).map(digits);
    Stored { key: key.to_owned(), text, hex }
}

fn kept(stored: Stored) -> (String, Option<Vec<u8>>) {
    let bytes = stored.hex.map(|hex| bytes(&hex));
    (stored.key, stored.text.map(String::into_bytes).or(bytes))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Skips characters that are no digits: only a manual edit can have put them there.
fn bytes(digits: &str) -> Vec<u8> {
    let nibbles: Vec<u8> =
        digits.chars().filter_map(|digit| digit.to_digit(16)).filter_map(|nibble| u8::try_from(nibble).ok()).collect();
    nibbles.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_went() {
        let all = [("ce_id", Some(b"17".to_vec())), ("odd", Some(vec![0xff, 0x00])), ("none", None)];
        let headers = Headers(all.map(|(key, value)| (key.to_owned(), value)).to_vec());
        let json = headers.to_json();
        assert_eq!(json, r#"[{"key":"ce_id","text":"17"},{"key":"odd","hex":"ff00"},{"key":"none"}]"#);
        assert_eq!(Headers::from_json(&json).unwrap(), headers);
        assert_eq!((headers.text("ce_id"), headers.text("odd"), headers.text("no")), (Some("17"), None, None));
        assert!(Headers::from_json("[1]").is_err());
    }
}
