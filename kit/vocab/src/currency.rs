//! Currencies: the active codes of ISO 4217 with their minor units.

use crate::InvalidField;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// The codes of ISO 4217 as of 1 January 2026, by the decimal digits of their minor unit. Precious metals, units of
/// account and test codes have no minor unit, and nobody pays with them: they are left out.
const BY_DIGITS: [(u8, &[u8]); 4] = [
    (0, b"BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF "),
    (
        2,
        b"AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF \
          CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL \
          HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU \
          MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR \
          SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED \
          VES WST XAD XCD XCG YER ZAR ZMW ZWG ",
    ),
    (3, b"BHD IQD JOD KWD LYD OMR TND "),
    (4, b"CLF UYW "),
];
const LETTERS: usize = 26;
/// Marks three letters that are no currency.
const NONE: u8 = u8::MAX;
/// The digits of every currency, by [`index_of`].
static DIGITS: [u8; LETTERS * LETTERS * LETTERS] = digits();

const fn digits() -> [u8; LETTERS * LETTERS * LETTERS] {
    let mut table = [NONE; LETTERS * LETTERS * LETTERS];
    let mut group = 0;
    while group < BY_DIGITS.len() {
        let (digits, codes) = BY_DIGITS[group];
        let mut at = 0;
        while at < codes.len() {
            table[index_of([codes[at], codes[at + 1], codes[at + 2]])] = digits;
            at += 4;
        }
        group += 1;
    }
    table
}

/// Returns the index of three upper-case letters in [`DIGITS`].
const fn index_of(code: [u8; 3]) -> usize {
    let [a, b, c] = code;
    ((a - b'A') as usize * LETTERS + (b - b'A') as usize) * LETTERS + (c - b'A') as usize
}

/// An ISO 4217 currency code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Parses a currency that is stored already. It may be any three upper-case letters: an earlier release accepted
    /// them all, and stored values must stay readable.
    pub fn stored(text: &str) -> Result<Self, InvalidField> {
        letters(text).map(Self).ok_or_else(|| InvalidField::new("currency", "must be three upper-case letters"))
    }

    /// Returns the three upper-case letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is three ASCII letters")
    }

    /// Returns the decimal digits of its minor unit: 2 for EUR, 0 for JPY, 3 for KWD. For display only: amounts are
    /// minor units everywhere, and nothing scales them. Returns `None` for a stored code that is not in ISO 4217.
    pub fn minor_digits(&self) -> Option<u8> {
        Some(DIGITS[index_of(self.0)]).filter(|digits| *digits != NONE)
    }
}

fn letters(text: &str) -> Option<[u8; 3]> {
    let code: [u8; 3] = text.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_uppercase).then_some(code)
}

impl FromStr for Currency {
    type Err = InvalidField;

    /// Fails for a code that is not in ISO 4217, and names `currency`.
    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let currency = letters(text).map(Self).filter(|currency| currency.minor_digits().is_some());
        currency.ok_or_else(|| {
            InvalidField::new("currency", "must be an ISO 4217 code of three upper-case letters, such as EUR")
        })
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn currencies_are_those_of_iso_4217() {
        for bad in ["", "eur", "EU", "EURO", "E1R", "ÄUR", "ZZZ", "QQQ", "XXX", "XTS", "XAU", "DEM", "EUR "] {
            assert_eq!(bad.parse::<Currency>().unwrap_err().field, "currency", "{bad}");
        }
        for (code, digits) in [("EUR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("BHD", 3), ("CLF", 4)] {
            assert_eq!(code.parse::<Currency>().unwrap().minor_digits(), Some(digits), "{code}");
        }
    }

    #[test]
    fn the_table_has_each_code_once() {
        let codes: usize = BY_DIGITS.iter().map(|(_, codes)| codes.len() / 4).sum();
        assert_eq!(DIGITS.iter().filter(|digits| **digits != NONE).count(), codes);
        let mut all = BY_DIGITS.iter().flat_map(|(_, codes)| codes.chunks(4));
        assert!(all.all(|code| code.len() == 4 && code[3] == b' '));
    }

    #[test]
    fn what_an_earlier_release_has_stored_is_read() {
        let stored = Currency::stored("ZZZ").unwrap();
        assert_eq!((stored.as_str(), stored.minor_digits()), ("ZZZ", None));
        assert_eq!(Currency::stored("EUR").unwrap(), "EUR".parse().unwrap());
        assert!(Currency::stored("eur").is_err());
    }
}
