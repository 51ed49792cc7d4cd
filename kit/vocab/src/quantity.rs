//! A number of units of an item: never zero.

use crate::InvalidField;

/// 1 to [`Quantity::MAX`] units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i32);

impl Quantity {
    /// The most units of one line.
    pub const MAX: i64 = 1_000_000;

    /// Takes 1 to [`Quantity::MAX`]; the error names the field `units`.
    pub fn new(units: i64) -> Result<Self, InvalidField> {
        if (1..=Self::MAX).contains(&units) {
            Ok(Self(i32::try_from(units).expect("at most MAX")))
        } else {
            Err(InvalidField::new("units", format!("must be 1 to {}, but is {units}", Self::MAX)))
        }
    }

    /// Returns the units.
    pub const fn get(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_and_too_many_are_refused() {
        for bad in [0, -1, i64::MIN, Quantity::MAX + 1] {
            assert_eq!(Quantity::new(bad).unwrap_err().field, "units", "{bad}");
        }
        assert_eq!(Quantity::new(1).unwrap().get(), 1);
    }
}
