//! Values of a sale file that refuse impossible input as they are read, so that the parser can name the line.

use serde::{Deserialize, Deserializer, de::Error};
use stampede_vocab::{Currency, Money};
use std::{fmt, time::Duration};

/// Longest title or name that the mesh accepts, in characters.
const LONGEST_TITLE: usize = 200;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<const MIN: u32, const MAX: u32>(u32);

/// A length of time in milliseconds, from `MIN` to `MAX`.
pub type Millis<const MIN: u32, const MAX: u32> = Within<MIN, MAX>;

impl<const MIN: u32, const MAX: u32> Within<MIN, MAX> {
    /// Returns `value`, if it is within the bounds.
    pub const fn new(value: u32) -> Option<Self> {
        if MIN <= value && value <= MAX { Some(Self(value)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    pub const fn millis(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

impl<const MIN: u32, const MAX: u32> fmt::Display for Within<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = i64::deserialize(deserializer)?;
        let bounded = u32::try_from(value).ok().and_then(Self::new);
        bounded.ok_or_else(|| D::Error::custom(format!("must be {MIN} to {MAX}, but is {value}")))
    }
}

/// A share of the crowd in percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Percent(f64);

impl Percent {
    /// Returns the share as a probability, 0 to 1.
    pub fn probability(self) -> f64 {
        self.0 / 100.0
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Number::deserialize(deserializer)?.as_f64();
        if (0.0..=100.0).contains(&value) {
            return Ok(Self(value));
        }
        Err(D::Error::custom(format!("must be 0 to 100 percent, but is {value}")))
    }
}

/// A number as people write it, 5 as well as 0.5.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a number")]
enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    fn as_f64(&self) -> f64 {
        match *self {
            #[expect(clippy::cast_precision_loss, reason = "any whole number this large is refused anyway")]
            Self::Whole(value) => value as f64,
            Self::Fraction(value) => value,
        }
    }
}

/// A title of 1 to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Title {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let length = text.chars().count();
        if (1..=LONGEST_TITLE).contains(&length) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("must have 1 to {LONGEST_TITLE} characters, but has {length}")))
    }
}

/// An amount above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    minor_units: Within<1, 2_000_000_000>,
    currency: Currency,
}

impl Price {
    pub fn money(self) -> Money {
        Money::new(i64::from(self.minor_units.get()), self.currency)
    }

    pub const fn currency(self) -> Currency {
        self.currency
    }
}
