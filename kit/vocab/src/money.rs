//! Exact amounts of money. Arithmetic fails on overflow and on mixed currencies.

use crate::{Currency, Quantity};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why an amount could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The amounts are of two currencies.
    #[error("{0} and {1} cannot be added up")]
    CurrencyMismatch(Currency, Currency),
    /// The amount does not fit into 64 bits of minor units.
    #[error("the amount is too large")]
    Overflow,
}

/// An amount in the minor units (cents, yen) of one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units: 1999 is 19.99 EUR.
    pub minor_units: i64,
    /// The currency.
    pub currency: Currency,
}

impl Money {
    /// Makes an amount of `minor_units` of `currency`.
    pub const fn new(minor_units: i64, currency: Currency) -> Self {
        Self { minor_units, currency }
    }

    /// Returns zero in `currency`.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// Returns the sum. Fails for two currencies and on overflow.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let sum = self.minor_units.checked_add(other.minor_units).ok_or(MoneyError::Overflow)?;
        Ok(Self::new(sum, self.currency))
    }

    /// Returns the price of so many units. Fails on overflow.
    pub fn checked_mul(self, quantity: Quantity) -> Result<Self, MoneyError> {
        let product = self.minor_units.checked_mul(i64::from(quantity.get())).ok_or(MoneyError::Overflow)?;
        Ok(Self::new(product, self.currency))
    }

    /// Returns the amount less `other`, at least zero. Fails for two currencies.
    pub fn capped_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Ok(Self::new(self.minor_units.saturating_sub(other.minor_units).max(0), self.currency))
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(MoneyError::CurrencyMismatch(self.currency, other.currency))
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.minor_units, self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur(minor_units: i64) -> Money {
        Money::new(minor_units, "EUR".parse().unwrap())
    }

    #[test]
    fn what_does_not_fit_is_an_error_not_a_wrap() {
        assert_eq!(eur(i64::MAX).checked_add(eur(1)), Err(MoneyError::Overflow));
        assert_eq!(eur(i64::MAX).checked_mul(Quantity::new(2).unwrap()), Err(MoneyError::Overflow));
    }

    #[test]
    fn two_currencies_never_meet() {
        let usd = Money::new(1, "USD".parse().unwrap());
        assert!(matches!(eur(1).checked_add(usd), Err(MoneyError::CurrencyMismatch(..))));
        assert!(matches!(eur(1).capped_sub(usd), Err(MoneyError::CurrencyMismatch(..))));
    }

    #[test]
    fn a_discount_ends_at_zero() {
        assert_eq!(eur(5).capped_sub(eur(9)), Ok(eur(0)));
        assert_eq!(eur(9).capped_sub(eur(5)), Ok(eur(4)));
    }
}
