//! Formats and parses ages and times, and sanitizes foreign text.

use stampede_vocab::Timestamp;
use std::time::Duration;

/// Sanitizes foreign text for a terminal: one line, without control characters, and no longer than this.
pub fn printable(text: &str, longest: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut printed: String = text.chars().take(longest).map(plain).collect();
    if text.chars().nth(longest).is_some() {
        printed.push('…');
    }
    printed
}

/// Returns a time, in microseconds since the epoch, as in JSON; the number if it is out of range.
pub fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| at.to_string())
}

/// Returns the age in seconds.
pub fn seconds_since(micros: i64, now: Timestamp) -> f64 {
    now.since(Timestamp::from_micros(micros)).as_secs_f64()
}

/// Returns an age in the largest unit of which it has at least two.
pub fn age(seconds: f64) -> String {
    for (unit, name) in [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")] {
        if seconds >= 2.0 * unit {
            return format!("{:.0} {name}", (seconds / unit).floor());
        }
    }
    format!("{:.0} s", seconds.floor())
}

/// Reads an age such as `90s`, `15m`, `2h` or `3d`.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit_s = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(unit_s).and_then(|(number, unit_s)| number.checked_mul(unit_s));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a number with s, m, h or d, such as 90s, 15m, 2h or 3d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(printable("a\u{1b}[31m\nb", 80), "a [31m b");
        assert_eq!(printable("äöü", 3), "äöü");
        assert_eq!(printable("äöüß", 3), "äöü…");
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages = [(0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7_200.0, "2 h"), (200_000.0, "2 d")];
        for (seconds, expected) in ages {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn an_age_without_a_unit_is_refused() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("3d", 259_200)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "5", "h", "1.5h", "-1s", "2 h", "99999999999999999999s", "99999999999999999d"] {
            assert!(parse_age(text).unwrap_err().contains("such as 90s"), "{text}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_shown_as_its_number() {
        assert_eq!(time(1_700_000_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }
}
