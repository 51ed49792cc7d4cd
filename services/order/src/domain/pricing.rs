//! Prices of orders. All arithmetic is checked.

use super::{Line, PlaceRefusal};
use stampede_vocab::{Money, MoneyError};

/// The price of an order; `subtotal - discount = total`, all in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Sum of the lines.
    pub subtotal: Money,
    /// The discount of the coupon, at most the subtotal.
    pub discount: Money,
    pub total: Money,
}

impl Prices {
    /// Returns the price of these lines without a coupon. There is at least one line.
    pub fn of(lines: &[Line]) -> Result<Self, PlaceRefusal> {
        let currency = lines.first().expect("an order has at least one line").unit_price.currency;
        let subtotal = lines
            .iter()
            .try_fold(Money::zero(currency), |sum, line| sum.checked_add(line.unit_price.checked_mul(line.units)?))?;
        Ok(Self { subtotal, discount: Money::zero(currency), total: subtotal })
    }

    /// Returns the price less the discount `off`, at least zero.
    pub fn with_discount(self, off: Money) -> Result<Self, PlaceRefusal> {
        let total = self.subtotal.capped_sub(off)?;
        Ok(Self { discount: self.subtotal.capped_sub(total)?, total, ..self })
    }

    /// Returns the price. Refuses a total over the buyer's limit.
    pub fn checked_against(self, max: Option<Money>) -> Result<Self, PlaceRefusal> {
        match max {
            Some(max) if max.currency != self.total.currency => {
                Err(PlaceRefusal::CurrencyMismatch { field: "max_total.currency", currency: self.total.currency })
            }
            Some(max) if self.total.minor_units > max.minor_units => {
                Err(PlaceRefusal::PriceChanged { total: self.total })
            }
            _ => Ok(self),
        }
    }
}

/// A mismatch cannot happen in practice: inventory refuses lines of more than one currency, and coupon refuses to hold
/// a coupon of another.
impl From<MoneyError> for PlaceRefusal {
    fn from(error: MoneyError) -> Self {
        match error {
            MoneyError::Overflow => Self::TotalOverflow,
            MoneyError::CurrencyMismatch(currency, _) => Self::CurrencyMismatch { field: "lines", currency },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::{ItemId, Quantity};
    use uuid::Uuid;

    fn eur(minor_units: i64) -> Money {
        Money::new(minor_units, "EUR".parse().unwrap())
    }

    fn line(units: i64, unit_price: Money) -> Line {
        let item = ItemId::from_uuid(Uuid::nil());
        let (title, gift_title) = ("Lamp".into(), "".into());
        Line { item, units: Quantity::new(units).unwrap(), unit_price, gift_units: 0, title, gift_title }
    }

    #[test]
    fn the_discount_is_what_was_taken_off_in_fact() {
        let prices = Prices::of(&[line(2, eur(300)), line(1, eur(50))]).unwrap();
        assert_eq!(prices.total, eur(650));
        let discounted = prices.with_discount(eur(150)).unwrap();
        assert_eq!((discounted.subtotal, discounted.discount, discounted.total), (eur(650), eur(150), eur(500)));
        let free = prices.with_discount(eur(10_000)).unwrap();
        assert_eq!((free.subtotal, free.discount, free.total), (eur(650), eur(650), eur(0)));
    }

    #[test]
    fn a_total_that_does_not_fit_is_refused() {
        let lines = [line(1, eur(i64::MAX)), line(1, eur(1))];
        assert_eq!(Prices::of(&lines), Err(PlaceRefusal::TotalOverflow));
        assert_eq!(Prices::of(&[line(2, eur(i64::MAX))]), Err(PlaceRefusal::TotalOverflow));
    }

    #[test]
    fn the_buyer_pays_at_most_what_they_said() {
        let prices = Prices::of(&[line(1, eur(100))]).unwrap();
        assert!(prices.checked_against(None).is_ok());
        assert!(prices.checked_against(Some(eur(100))).is_ok());
        assert_eq!(prices.checked_against(Some(eur(99))), Err(PlaceRefusal::PriceChanged { total: eur(100) }));
        let usd = Money::new(500, "USD".parse().unwrap());
        assert!(matches!(prices.checked_against(Some(usd)), Err(PlaceRefusal::CurrencyMismatch { .. })));
    }
}
