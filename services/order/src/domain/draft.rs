//! A requested order, validated as far as that needs no other service.

use sha2::{Digest, Sha256};
use stampede_vocab::{
    CouponId, EventId, Fingerprint, InvalidField, ItemId, Money, OrderId, Quantity, RequestId, UserId,
};
use std::collections::HashMap;

/// Most lines of one order.
const MAX_LINES: usize = stampede_vocab::limits::MAX_ORDER_LINES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedLine {
    pub item: ItemId,
    pub units: Quantity,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The id it has or will have.
    pub order: OrderId,
    pub buyer: UserId,
    /// The buyer's idempotency key.
    pub request: RequestId,
    pub event: EventId,
    /// 1 to 20 lines, no item twice.
    pub lines: Vec<RequestedLine>,
    pub coupon: Option<CouponId>,
    /// Highest total that the buyer accepts.
    pub max_total: Option<Money>,
}

impl Draft {
    /// Fails with the field at fault if the number of lines is out of bounds, or an item is there twice.
    pub fn new(
        buyer: UserId,
        request: RequestId,
        event: EventId,
        lines: Vec<RequestedLine>,
        coupon: Option<CouponId>,
        max_total: Option<Money>,
    ) -> Result<Self, InvalidField> {
        if !(1..=MAX_LINES).contains(&lines.len()) {
            let problem = format!("must have 1 to {MAX_LINES} lines, but has {}", lines.len());
            return Err(InvalidField::new("lines", problem));
        }
        refuse_duplicates(&lines)?;
        let order = OrderId::derive(buyer, &request);
        Ok(Self { order, buyer, request, event, lines, coupon, max_total })
    }

    /// Returns the hash of the request. The order of the lines does not count.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut lines = self.lines.clone();
        lines.sort_by_key(|line| line.item);
        let mut hash = Sha256::new();
        hash.update(self.event.as_bytes());
        for line in lines {
            hash.update(line.item.as_bytes());
            hash.update(line.units.get().to_be_bytes());
        }
        if let Some(coupon) = self.coupon {
            hash.update(b"coupon");
            hash.update(coupon.as_bytes());
        }
        if let Some(max) = self.max_total {
            hash.update(b"max");
            hash.update(max.minor_units.to_be_bytes());
            hash.update(max.currency.as_str());
        }
        Fingerprint::new(hash.finalize().into())
    }

    /// Returns the index of the line of this item.
    pub fn line_of(&self, item: ItemId) -> Option<usize> {
        self.lines.iter().position(|line| line.item == item)
    }
}

fn refuse_duplicates(lines: &[RequestedLine]) -> Result<(), InvalidField> {
    let mut seen = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(first) = seen.insert(line.item, index) {
            let problem = format!("names the same item as lines[{first}]: ask for all its units in one line");
            return Err(InvalidField::new(format!("lines[{index}].item_id"), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn wanted(item: u128, units: i64) -> RequestedLine {
        RequestedLine { item: ItemId::from_uuid(Uuid::from_u128(item)), units: Quantity::new(units).unwrap() }
    }

    fn draft(lines: Vec<RequestedLine>) -> Result<Draft, InvalidField> {
        let request = RequestId::parse("r-1").unwrap();
        let (buyer, event) = (UserId::from_uuid(Uuid::nil()), EventId::from_uuid(Uuid::nil()));
        Draft::new(buyer, request, event, lines, None, None)
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        assert_eq!(draft(vec![]).unwrap_err().field, "lines");
        let many = |n: u128| (0..n).map(|item| wanted(item, 1)).collect();
        assert!(draft(many(20)).is_ok());
        assert_eq!(draft(many(21)).unwrap_err().field, "lines");
    }

    #[test]
    fn an_item_twice_is_named_where_it_comes_again() {
        let error = draft(vec![wanted(1, 1), wanted(2, 1), wanted(1, 5)]).unwrap_err();
        assert_eq!(error.field, "lines[2].item_id");
        assert!(error.problem.contains("lines[0]"), "{error}");
    }

    #[test]
    fn the_fingerprint_tells_other_wishes_apart_but_not_another_sequence() {
        let first = draft(vec![wanted(1, 1), wanted(2, 3)]).unwrap();
        let turned = draft(vec![wanted(2, 3), wanted(1, 1)]).unwrap();
        let other = draft(vec![wanted(1, 3), wanted(2, 1)]).unwrap();
        assert_eq!(first.fingerprint(), turned.fingerprint());
        assert_ne!(first.fingerprint(), other.fingerprint());
        let capped = Draft { max_total: Some(Money::new(1, "EUR".parse().unwrap())), ..first.clone() };
        assert_ne!(first.fingerprint(), capped.fingerprint());
        let coupon = Draft { coupon: Some(CouponId::from_uuid(Uuid::nil())), ..first.clone() };
        assert_ne!(first.fingerprint(), coupon.fingerprint());
    }
}
