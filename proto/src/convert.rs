//! Conversions between the values that every contract carries and those of `stampede_vocab`.

use crate::r#type::v1::{DeclineCode, Money as ProtoMoney};
use prost_types::Timestamp as ProtoTimestamp;
use stampede_vocab::{Currency, InvalidField, Money, Timestamp};

const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_MICRO: i64 = 1_000;
/// 9999-12-31T23:59:59Z, where protobuf's timestamps end.
const LAST_SECOND: i64 = 253_402_300_799;

impl From<Money> for ProtoMoney {
    fn from(money: Money) -> Self {
        Self { minor_units: money.minor_units, currency: money.currency.to_string() }
    }
}

impl TryFrom<&ProtoMoney> for Money {
    type Error = InvalidField;

    /// Fails for a currency that is none, and names `currency`.
    fn try_from(money: &ProtoMoney) -> Result<Self, InvalidField> {
        Ok(Self::new(money.minor_units, money.currency.parse()?))
    }
}

/// Returns the money in `field`, which must be set.
pub fn money(field: &str, money: Option<&ProtoMoney>) -> Result<Money, InvalidField> {
    set(field, money)?.try_into().map_err(|error: InvalidField| error.within(field))
}

/// Returns the money in `field`, which must be set and not negative.
pub fn amount(field: &str, amount: Option<&ProtoMoney>) -> Result<Money, InvalidField> {
    not_negative(field, money(field, amount)?)
}

/// Returns the money in `field`, which must be set, of what services tell each other: it was taken before, maybe by an
/// earlier release, in a currency that none is taken in any more. Money that is on its way has to arrive.
pub fn stored_money(field: &str, money: Option<&ProtoMoney>) -> Result<Money, InvalidField> {
    let money = set(field, money)?;
    let currency = Currency::stored(&money.currency).map_err(|error| error.within(field))?;
    Ok(Money::new(money.minor_units, currency))
}

/// Returns what [`stored_money`] does, which must not be negative.
pub fn stored_amount(field: &str, amount: Option<&ProtoMoney>) -> Result<Money, InvalidField> {
    not_negative(field, stored_money(field, amount)?)
}

fn set<'m>(field: &str, money: Option<&'m ProtoMoney>) -> Result<&'m ProtoMoney, InvalidField> {
    money.ok_or_else(|| InvalidField::new(field, "must be set"))
}

fn not_negative(field: &str, amount: Money) -> Result<Money, InvalidField> {
    if amount.minor_units < 0 {
        let problem = format!("must not be negative, but is {}", amount.minor_units);
        return Err(InvalidField::new("minor_units", problem).within(field));
    }
    Ok(amount)
}

/// Returns the time as the contracts carry it.
pub fn timestamp(at: Timestamp) -> ProtoTimestamp {
    let nanos = at.micros().rem_euclid(MICROS_PER_SECOND) * NANOS_PER_MICRO;
    ProtoTimestamp {
        seconds: at.micros().div_euclid(MICROS_PER_SECOND),
        nanos: i32::try_from(nanos).expect("less than a second of nanoseconds fits"),
    }
}

/// Returns the time in `field`, which must be set, rounded up to a microsecond: nothing that waits for it happens
/// before. Fails outside of the years 1970 to 9999.
pub fn time(field: &str, at: Option<ProtoTimestamp>) -> Result<Timestamp, InvalidField> {
    let at = at.ok_or_else(|| InvalidField::new(field, "must be set"))?;
    let range = || InvalidField::new(field, "must be a time from 1970 to 9999");
    if !(0..=LAST_SECOND).contains(&at.seconds) || !(0..1_000_000_000).contains(&at.nanos) {
        return Err(range());
    }
    let micros = at.seconds * MICROS_PER_SECOND + (i64::from(at.nanos) + NANOS_PER_MICRO - 1) / NANOS_PER_MICRO;
    if micros > LAST_SECOND * MICROS_PER_SECOND + (MICROS_PER_SECOND - 1) {
        return Err(range());
    }
    Ok(Timestamp::from_micros(micros))
}

/// Returns the decline code for a text, as a provider gives it and as rows and messages carry it. `PROVIDER_OTHER` for
/// one that is not in the list, and unspecified for the empty one.
pub fn decline_code(text: &str) -> DeclineCode {
    match text {
        "" => DeclineCode::Unspecified,
        "card_declined" => DeclineCode::CardDeclined,
        "insufficient_funds" => DeclineCode::InsufficientFunds,
        "expired_card" => DeclineCode::ExpiredCard,
        "invalid_payment_method" => DeclineCode::InvalidPaymentMethod,
        "order_ended" => DeclineCode::OrderEnded,
        _ => DeclineCode::ProviderOther,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decline_code_is_known_by_its_own_name() {
        for code in (1_i32..).map_while(|number| DeclineCode::try_from(number).ok()) {
            let text = code.as_str_name().trim_start_matches("DECLINE_CODE_").to_ascii_lowercase();
            assert_eq!(decline_code(&text), code, "{text}");
        }
        assert_eq!(decline_code(""), DeclineCode::Unspecified);
        assert_eq!(decline_code("lost_card"), DeclineCode::ProviderOther);
    }

    fn at(seconds: i64, nanos: i32) -> Option<ProtoTimestamp> {
        Some(ProtoTimestamp { seconds, nanos })
    }

    #[test]
    fn a_time_is_rounded_up_to_a_microsecond() {
        for (nanos, micros) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (999_999_999, 1_000_000)] {
            assert_eq!(time("open_time", at(2, nanos)), Ok(Timestamp::from_micros(2_000_000 + micros)), "{nanos}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_refused_by_field() {
        let last = (LAST_SECOND, 999_999_001);
        for bad in [None, at(-1, 0), at(LAST_SECOND + 1, 0), at(0, -1), at(0, 1_000_000_000), at(last.0, last.1)] {
            assert_eq!(time("close_time", bad).unwrap_err().field, "close_time", "{bad:?}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_was_read() {
        for micros in [0, 1, 999_999, 1_000_000, LAST_SECOND * MICROS_PER_SECOND + 999_999] {
            let written = timestamp(Timestamp::from_micros(micros));
            assert_eq!(time("t", Some(written)), Ok(Timestamp::from_micros(micros)), "{micros}");
        }
        let before_the_epoch = timestamp(Timestamp::from_micros(-1));
        assert_eq!((before_the_epoch.seconds, before_the_epoch.nanos), (-1, 999_999_000));
    }

    #[test]
    fn a_wrong_amount_names_the_field_within_it() {
        let of = |minor_units, currency: &str| ProtoMoney { minor_units, currency: currency.to_owned() };
        let field = |read: Result<Money, InvalidField>| read.unwrap_err().field;
        assert_eq!(field(money("discount", None)), "discount");
        assert_eq!(field(money("discount", Some(&of(1, "euro")))), "discount.currency");
        assert_eq!(field(amount("max_total", Some(&of(-1, "EUR")))), "max_total.minor_units");
        let five = amount("max_total", Some(&of(5, "EUR"))).unwrap();
        assert_eq!(ProtoMoney::from(five), of(5, "EUR"));
    }

    #[test]
    fn a_currency_that_is_none_any_more_is_read_and_not_taken() {
        let of = |minor_units, currency: &str| ProtoMoney { minor_units, currency: currency.to_owned() };
        let leva = of(5, "BGN");
        assert_eq!(money("price", Some(&leva)).unwrap_err().field, "price.currency");
        assert_eq!(ProtoMoney::from(stored_money("price", Some(&leva)).unwrap()), leva);
        let field = |read: Result<Money, InvalidField>| read.unwrap_err().field;
        assert_eq!(field(stored_amount("price", None)), "price");
        assert_eq!(field(stored_amount("price", Some(&of(5, "bgn")))), "price.currency");
        assert_eq!(field(stored_amount("price", Some(&of(-5, "BGN")))), "price.minor_units");
    }
}
