//! The parts of an order that are JSON in columns of its row.
//!
//! JSON, since an operator can read it in a query, and the audit by `JSON_TABLE` (the view `all_order_lines`). A line
//! takes some 80 bytes: small beside the cost of a row of its own.

use crate::domain::{Line, Order, PayRequest};
use serde::{Deserialize, Serialize};
use stampede_vocab::{Currency, Fingerprint, InvalidField, ItemId, Money, Quantity, RequestId};
use uuid::Uuid;

/// Most payments in the row of an order, so that it stays small. Later ones are rows of `pay_requests`.
pub(super) const MAX_PAYMENTS: usize = 8;

/// Why a column cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackedError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error("a fingerprint is not 64 hexadecimal digits")]
    Fingerprint,
}

/// A line; its currency is that of the order.
#[derive(Serialize, Deserialize)]
struct PackedLine {
    #[serde(with = "uuid::serde::simple")]
    item: Uuid,
    units: i32,
    price: i64,
    gifts: i32,
    /// Left out if unknown, as in rows of an earlier release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    gift_title: String,
}

impl PackedLine {
    fn line(&self, currency: Currency) -> Result<Line, PackedError> {
        Ok(Line {
            item: ItemId::from_uuid(self.item),
            units: Quantity::new(self.units.into())?,
            unit_price: Money::new(self.price, currency),
            gift_units: self.gifts,
            title: self.title.as_str().into(),
            gift_title: self.gift_title.as_str().into(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PackedPayment {
    request: String,
    /// The fingerprint in hexadecimal.
    method: String,
}

impl PackedPayment {
    fn payment(&self) -> Result<PayRequest, PackedError> {
        Ok(PayRequest { id: RequestId::parse(&self.request)?, fingerprint: fingerprint(&self.method)? })
    }
}

/// Encodes the lines of an order for its row.
pub(super) fn pack_lines(order: &Order) -> String {
    let packed = |line: &Line| PackedLine {
        item: line.item.uuid(),
        units: line.units.get(),
        price: line.unit_price.minor_units,
        gifts: line.gift_units,
        title: line.title.to_string(),
        gift_title: line.gift_title.to_string(),
    };
    let lines: Vec<PackedLine> = order.lines.iter().map(packed).collect();
    serde_json::to_string(&lines).expect("numbers and text are JSON")
}

/// Decodes lines that [`pack_lines`] encoded.
pub(super) fn lines(text: &str, currency: Currency) -> Result<Vec<Line>, PackedError> {
    let packed: Vec<PackedLine> = serde_json::from_str(text)?;
    packed.iter().map(|line| line.line(currency)).collect()
}

/// Encodes the payments of an order that its row holds.
pub(super) fn pack_payments(order: &Order) -> String {
    let packed = |request: &PayRequest| PackedPayment {
        request: request.id.as_str().to_owned(),
        method: request.fingerprint.to_string(),
    };
    let payments: Vec<PackedPayment> = order.pay_requests.iter().take(MAX_PAYMENTS).map(packed).collect();
    serde_json::to_string(&payments).expect("text is JSON")
}

/// Decodes payments that [`pack_payments`] encoded.
pub(super) fn payments(text: &str) -> Result<Vec<PayRequest>, PackedError> {
    let packed: Vec<PackedPayment> = serde_json::from_str(text)?;
    packed.iter().map(PackedPayment::payment).collect()
}

fn fingerprint(digits: &str) -> Result<Fingerprint, PackedError> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((value(*high)? << 4) | value(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    Ok(Fingerprint::parse(&bytes.ok_or(PackedError::Fingerprint)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Draft, Prices, RequestedLine, Reserved};
    use stampede_vocab::{EventId, Timestamp, UserId};

    fn order() -> Order {
        let wanted = [(1, 2), (9, 1)].map(|(item, units)| RequestedLine {
            item: ItemId::from_uuid(Uuid::from_u128(item)),
            units: Quantity::new(units).unwrap(),
        });
        let line = |wanted: &RequestedLine| Line {
            item: wanted.item,
            units: wanted.units,
            unit_price: Money::new(1_999, "EUR".parse().unwrap()),
            gift_units: 1,
            title: "가습기 \"Fog\"".into(),
            gift_title: "".into(),
        };
        let lines: Vec<Line> = wanted.iter().map(line).collect();
        let (buyer, event) = (UserId::from_uuid(Uuid::nil()), EventId::from_uuid(Uuid::nil()));
        let request = RequestId::parse("r").unwrap();
        let draft = Draft::new(buyer, request, event, wanted.to_vec(), None, None).unwrap();
        let prices = Prices::of(&lines).unwrap();
        let reserved = Reserved { lines, arrival: 1, request_time: None, is_committed: true };
        Order::place(&draft, reserved, prices, Timestamp::from_micros(1), Timestamp::from_micros(2))
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_by_their_names() {
        let order = order();
        let text = pack_lines(&order);
        let first = r#"[{"item":"00000000000000000000000000000001","units":2,"price":1999,"gifts":1,"title":"가습기"#;
        assert!(text.starts_with(first) && !text.contains("gift_title"), "{text}");
        assert_eq!(lines(&text, "EUR".parse().unwrap()).unwrap(), order.lines);
        // As a server that stores JSON in a sequence of its own gives it back.
        let turned = r#"[{"gifts": 0, "price": 5, "units": 1, "item": "00000000000000000000000000000001"}]"#;
        let turned = lines(turned, "EUR".parse().unwrap()).unwrap();
        assert_eq!((turned[0].unit_price.minor_units, &*turned[0].title), (5, ""));
        for bad in ["", "[{}]", text.replace("\"units\":2", "\"units\":0").as_str()] {
            assert!(lines(bad, "EUR".parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_payments_are_read_as_they_were_written_and_later_ones_are_left_out() {
        let mut order = order();
        let asked: Vec<PayRequest> = (0..=MAX_PAYMENTS)
            .map(|number| PayRequest::new(RequestId::parse(&format!("p-{number}")).unwrap(), "pm_card"))
            .collect();
        order.pay_requests = asked[..2].to_vec();
        assert_eq!(payments(&pack_payments(&order)).unwrap(), order.pay_requests);
        order.pay_requests.clone_from(&asked);
        assert_eq!(payments(&pack_payments(&order)).unwrap(), asked[..MAX_PAYMENTS]);
        for bad in ["zz".repeat(32), "0a".repeat(31), "0a0".to_owned()] {
            assert!(payments(&format!(r#"[{{"request":"p","method":"{bad}"}}]"#)).is_err(), "{bad}");
        }
    }
}
