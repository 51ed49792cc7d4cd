//! Detects card numbers, which this system never accepts: buyers pay with tokens of the payment provider. To store or
//! log a card number falls under PCI DSS, so texts of callers are checked for them.

use crate::InvalidField;
use std::ops::RangeInclusive;

/// The lengths of card numbers, in digits.
const MIN_DIGITS: usize = 13;
const MAX_DIGITS: usize = 19;

/// A format of the digits of a card number in groups.
struct Format {
    is_separator: fn(char) -> bool,
    /// Digits of a group, if there are several.
    group: RangeInclusive<usize>,
}

/// The formats that people and forms use. Dates, prices and ids have the separators of the second one too, but seldom
/// in groups like those of cards.
const FORMATS: [Format; 2] = [
    Format { is_separator: is_blank_or_dash, group: 1..=MAX_DIGITS },
    Format { is_separator: is_blank_or_sign, group: 3..=6 },
];

/// Fails if the whole text looks like a card number, with or without separators. For ids that callers choose: a part of
/// a UUID may look like a card number by chance, the whole never does. The error does not quote it.
pub fn refuse_card_number(field: &str, text: &str) -> Result<(), InvalidField> {
    if FORMATS.iter().any(|format| format.is_card_number(&format.words(text))) { Err(refusal(field)) } else { Ok(()) }
}

/// Fails if a part of the text, between words and other characters, looks like a card number. For free text, and for
/// tokens of cards. The error does not quote it.
pub fn refuse_text_with_card_number(field: &str, text: &str) -> Result<(), InvalidField> {
    if FORMATS.iter().any(|format| format.is_in(text)) { Err(refusal(field)) } else { Ok(()) }
}

fn refusal(field: &str) -> InvalidField {
    InvalidField::new(field, "looks like a card number: send no card numbers, only tokens of the payment provider")
}

impl Format {
    fn is_in(&self, text: &str) -> bool {
        let is_other = |sign: char| !(sign.is_alphanumeric() || (self.is_separator)(sign));
        text.split(is_other).any(|part| self.is_among(&self.words(part)))
    }

    fn words<'t>(&self, text: &'t str) -> Vec<&'t str> {
        text.split(self.is_separator).filter(|word| !word.is_empty()).collect()
    }

    /// Returns whether some consecutive words make a card number. There may be numbers next to it, such as the month
    /// and the year of its expiry. A word counts with the digits in it, as in "v2".
    fn is_among(&self, words: &[&str]) -> bool {
        let mut numbers = words.split(|word| !is_number(word));
        numbers.any(|numbers| (0..numbers.len()).any(|first| self.begins(&numbers[first..])))
    }

    /// Returns whether a prefix of these numbers makes a card number.
    fn begins(&self, numbers: &[&str]) -> bool {
        let most = numbers.len().min(MAX_DIGITS);
        (1..=most).any(|count| self.is_card_number(&numbers[..count]))
    }

    /// Returns whether the words have 13 to 19 digits together, with an issuer's prefix and a valid check digit. Times
    /// in milliseconds and counters have other prefixes.
    fn is_card_number(&self, words: &[&str]) -> bool {
        let is_group = |word: &&str| is_number(word) && (words.len() == 1 || self.group.contains(&word.len()));
        if !words.iter().all(is_group) {
            return false;
        }
        let signs = words.iter().flat_map(|word| word.chars());
        let digits: Vec<u32> = signs.filter_map(|sign| sign.to_digit(10)).collect();
        (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len()) && is_of_issuer(&digits) && has_check_digit(&digits)
    }
}

/// Any white space, or any dash.
fn is_blank_or_dash(sign: char) -> bool {
    sign.is_whitespace() || matches!(sign, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// One of these, a dot, an underscore, a slash or a bar. No comma or colon: lists of prices and times of the day are no
/// card numbers.
fn is_blank_or_sign(sign: char) -> bool {
    is_blank_or_dash(sign) || matches!(sign, '.' | '_' | '/' | '\\' | '|' | '\u{b7}' | '\u{2022}')
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether the digits have the prefix of a card issuer (ISO/IEC 7812): 3 to 6, or 2221 to 2720 of Mastercard.
fn is_of_issuer(digits: &[u32]) -> bool {
    let first_four = digits.iter().take(4).fold(0_u32, |number, digit| number * 10 + digit);
    matches!(first_four, 3_000..=6_999 | 2_221..=2_720)
}

/// Checks the Luhn digit.
fn has_check_digit(digits: &[u32]) -> bool {
    let value = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, doubled) if doubled > 9 => doubled - 9,
        (_, doubled) => doubled,
    };
    digits.iter().rev().enumerate().map(value).sum::<u32>().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers for tests that issuers and providers publish.
    const CARDS: [&str; 20] = [
        "4242424242424242",
        "4242 4242 4242 4242",
        "5555-5555-5555-4444",
        "378282246310005",
        "4222222222222",
        "6011 1111 1111 1117",
        "2223003122003222",
        "6759649826438453",
        "4111.1111.1111.1111",
        "4111_1111_1111_1111",
        "4111/1111/1111/1111",
        "4111\\1111\\1111\\1111",
        "4111|1111|1111|1111",
        "4111\t1111\t1111\t1111",
        "4111\u{b7}1111\u{b7}1111\u{b7}1111",
        "4111\u{202f}1111\u{202f}1111\u{202f}1111",
        "4111\u{2014}1111\u{2014}1111\u{2014}1111",
        "4111\u{2022}1111\u{2022}1111\u{2022}1111",
        "4111\u{2212}1111\u{2212}1111\u{2212}1111",
        "4111 - 1111 . 1111 / 1111",
    ];

    #[test]
    fn what_looks_like_a_card_number_is_refused_and_not_repeated() {
        for card in CARDS {
            for text in [card.to_owned(), format!(" {card} ")] {
                let refused = refuse_card_number("request_id", &text).unwrap_err();
                assert_eq!(refused.field, "request_id");
                assert!(!refused.to_string().contains(card), "{refused}");
            }
            for text in [
                card.to_owned(),
                format!("my card {card} please"),
                format!("card:{card}."),
                format!("tok_{card}"),
                format!("{card} 12 27 123"),
                format!("2026 {card}"),
                format!("12-27  {card} 1"),
                format!("가습기 {card}"),
            ] {
                assert!(refuse_text_with_card_number("name", &text).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn other_numbers_are_taken() {
        for text in [
            "",
            "4242424242424241",
            "424242424242",
            "42424242424242424242",
            "pm_card_ok",
            "pm_1NvQ4242424242424242Kz",
            "1732882000003",
            "1732882000000007",
            "01936f2c-4242-4242-8242-424242424242",
            "12345678-1234-4567-8901-123456789012",
            "Sale of 2025, 20 % off from 1999",
            "0000000000000000",
            "4111,1111,1111,1111",
            "41:11:11:11:11:11:11:11",
            "2026.11.29_15.11.20.123",
            "4111.1111.1111.1112",
            "23.11.2026 - 25.11.2026",
            "30/11/2026 - 09/12/2026",
            "45.00 / 55.00 / 65.00 / 78.00",
            "4500.00 5500.00 6500.03",
            "48213_1732882000128",
            "62.17.107.4000.1234.12",
        ] {
            assert!(refuse_text_with_card_number("name", text).is_ok(), "{text}");
            assert!(refuse_card_number("request_id", text).is_ok(), "{text}");
        }
        // Only as a whole: a random id has such parts now and then.
        let id = "41111111-1111-4111-b1c2-abcdefabcdef";
        assert!(refuse_card_number("request_id", id).is_ok());
    }
}
