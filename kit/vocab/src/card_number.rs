//! Card numbers, which this system never takes: a buyer pays with a token of the payment provider. Whoever stores or
//! logs a card number by mistake has to answer for it, so that texts of callers are searched for them.

use crate::InvalidField;
use std::ops::RangeInclusive;

/// The lengths of card numbers, in digits.
const MIN_DIGITS: usize = 13;
const MAX_DIGITS: usize = 19;

/// A way to write the digits of a card number in groups.
struct Writing {
    is_separator: fn(char) -> bool,
    /// How many digits a group has, if there are several.
    group: RangeInclusive<usize>,
}

/// The ways that people and forms have. Dates, prices and ids have the signs of the second one too, but seldom in
/// groups as those of cards.
const WRITINGS: [Writing; 2] = [
    Writing { is_separator: is_blank_or_dash, group: 1..=MAX_DIGITS },
    Writing { is_separator: is_blank_or_sign, group: 3..=6 },
];

/// Fails if the whole text is what looks like a card number, with or without signs between its groups. For ids that
/// callers choose: of a UUID a part may look like a card number by chance, the whole never does. The error does not
/// repeat it.
pub fn refuse_card_number(field: &str, text: &str) -> Result<(), InvalidField> {
    if WRITINGS.iter().any(|writing| writing.is_card_number(&writing.words(text))) {
        Err(refusal(field))
    } else {
        Ok(())
    }
}

/// Fails if a part of the text, between words and other signs, is what looks like a card number. For texts that people
/// write, and for tokens of cards. The error does not repeat it.
pub fn refuse_text_with_card_number(field: &str, text: &str) -> Result<(), InvalidField> {
    if WRITINGS.iter().any(|writing| writing.is_in(text)) { Err(refusal(field)) } else { Ok(()) }
}

fn refusal(field: &str) -> InvalidField {
    InvalidField::new(field, "looks like a card number: send no card numbers, only tokens of the payment provider")
}

impl Writing {
    fn is_in(&self, text: &str) -> bool {
        let is_other = |sign: char| !(sign.is_alphanumeric() || (self.is_separator)(sign));
        text.split(is_other).any(|part| self.is_among(&self.words(part)))
    }

    fn words<'t>(&self, text: &'t str) -> Vec<&'t str> {
        text.split(self.is_separator).filter(|word| !word.is_empty()).collect()
    }

    /// Whether some of the words make a card number, next to each other: before and behind it there may be numbers too,
    /// such as the month and the year that it is good until. A word takes the digits with it that it has, as in "v2".
    fn is_among(&self, words: &[&str]) -> bool {
        let mut numbers = words.split(|word| !is_number(word));
        numbers.any(|numbers| (0..numbers.len()).any(|first| self.begins(&numbers[first..])))
    }

    /// Whether the first of these numbers, alone or with some that follow, make a card number.
    fn begins(&self, numbers: &[&str]) -> bool {
        let most = numbers.len().min(MAX_DIGITS);
        (1..=most).any(|count| self.is_card_number(&numbers[..count]))
    }

    /// Whether these are together 13 to 19 digits with a right check digit, as an issuer of cards has them. Times in
    /// milliseconds and counters begin otherwise.
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

/// One of these, a dot, an underscore, a slash or a bar. Not a comma or a colon: prices and times of the day, one
/// behind the other, are no card.
fn is_blank_or_sign(sign: char) -> bool {
    is_blank_or_dash(sign) || matches!(sign, '.' | '_' | '/' | '\\' | '|' | '\u{b7}' | '\u{2022}')
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether cards begin like this (ISO/IEC 7812): 3 to 6, and the range from 2221 to 2720 of Mastercard.
fn is_of_issuer(digits: &[u32]) -> bool {
    let first_four = digits.iter().take(4).fold(0_u32, |number, digit| number * 10 + digit);
    matches!(first_four, 3_000..=6_999 | 2_221..=2_720)
}

/// The check of Luhn.
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
