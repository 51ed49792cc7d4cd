//! Whole numbers as JSON may write them: in digits, with a fraction of zeroes, or with an exponent; exactly, or not at
//! all.

use serde_json::Number;

/// Digits of the largest number that any kind has, and some more.
const MOST_DIGITS: usize = 38;
/// From here on not every whole number is a number of JSON readers: 2^53.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Reads a number as a whole one. One with a fraction or an exponent is kept as a float, so it must be small enough to
/// be exact.
pub fn whole_of_number(number: &Number) -> Option<i128> {
    if let Some(whole) = number.as_i64() {
        return Some(whole.into());
    }
    if let Some(whole) = number.as_u64() {
        return Some(whole.into());
    }
    let float = number.as_f64()?;
    let is_exact = float.fract() == 0.0 && float.abs() < EXACT_BELOW;
    is_exact.then_some(float as i128)
}

/// Reads a text as a whole number, by the grammar of JSON numbers.
pub fn whole_of_text(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let is_leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || is_leading_zero || !(whole.bytes().chain(fraction.bytes())).all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let places = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    let magnitude = shifted(digits.trim_start_matches('0'), places)?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Returns the digits times ten to the power of `places`, if that is whole and not absurdly large.
fn shifted(digits: &str, places: i64) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    let length = usize::try_from(i64::try_from(digits.len()).ok()? + places).ok()?;
    if length > MOST_DIGITS {
        return None;
    }
    let (kept, cut) = digits.split_at_checked(length).unwrap_or((digits, ""));
    if cut.bytes().any(|byte| byte != b'0') {
        return None;
    }
    format!("{kept:0<length$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_exactly_or_not_at_all() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("42", Some(42)),
            ("-42", Some(-42)),
            ("1.0", Some(1)),
            ("1e2", Some(100)),
            ("1E+2", Some(100)),
            ("1.50e1", Some(15)),
            ("100e-2", Some(1)),
            ("0e999", Some(0)),
            ("0.0", Some(0)),
            ("9223372036854775808", Some(9_223_372_036_854_775_808)),
            ("9.223372036854775807e18", Some(9_223_372_036_854_775_807)),
            ("99999999999999999999999999999999999999", Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("999999999999999999999999999999999999999", None),
            ("1e999", None),
            ("1e99999", None),
            ("1e-1", None),
            ("1.5", None),
            ("0.01e1", None),
            ("+2", None),
            ("007", None),
            ("1.", None),
            (".5", None),
            ("", None),
            ("-", None),
            ("e1", None),
            ("1e", None),
            ("0x1", None),
            (" 1", None),
            ("1_000", None),
            ("\u{661}", None),
            ("NaN", None),
        ] {
            assert_eq!(whole_of_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_read_exactly_or_not_at_all() {
        for (text, expected) in [
            ("1e2", Some(100)),
            ("1.0", Some(1)),
            ("-0", Some(0)),
            ("1.5", None),
            ("18446744073709551615", Some(18_446_744_073_709_551_615)),
            ("-9223372036854775808", Some(-9_223_372_036_854_775_808)),
            ("9.223372036854775808e18", None),
            ("9007199254740993.0", None),
            ("9007199254740991.0", Some(9_007_199_254_740_991)),
            ("1e300", None),
        ] {
            let number: Number = serde_json::from_str(text).unwrap();
            assert_eq!(whole_of_number(&number), expected, "{text}");
        }
    }
}
