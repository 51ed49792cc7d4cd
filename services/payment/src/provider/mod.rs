//! The adapter to the payment provider: charges, look-ups and refunds over HTTP, and the notices that it sends. It has
//! the provider's formats and no rules of payments, so that a second provider would be a second module.

mod answer;
mod breaker;
mod http;
mod notice;
mod signature;

pub use answer::{ChargeRecord, RefundPage};
pub use breaker::{Breaker, BreakerPolicy};
pub use http::{HttpProvider, LookUp, ProviderError};
pub use notice::{Notice, NoticeError, read_notice};
pub use signature::WebhookSecrets;

use crate::domain::{Doubt, Outcome};
use serde::Deserialize;
use stampede_vocab::{Currency, Money};

/// Longest id of the provider that is accepted, by its column. The database would refuse a longer one together with all
/// rows of its batch.
const MAX_ID_CHARS: usize = 255;
/// Longest code of the provider; longer ones are truncated.
const MAX_CODE_CHARS: usize = 64;
/// Longest quote of an invalid currency.
const MAX_CURRENCY_CHARS: usize = 16;

/// The status of a charge in the words of the provider.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChargeStatus {
    Pending,
    Captured,
    Declined,
    #[serde(other)]
    Other,
}

/// Returns the outcome for a status of the provider. A captured amount in no known currency is in doubt.
fn outcome(
    status: &ChargeStatus,
    charge_id: String,
    amount: Result<Money, Doubt>,
    decline_code: Option<String>,
) -> Outcome {
    match (status, amount) {
        (ChargeStatus::Pending, _) => Outcome::Unresolved,
        (ChargeStatus::Captured, Ok(amount)) => Outcome::Captured { charge_id: Some(charge_id), amount },
        (ChargeStatus::Captured, Err(doubt)) => Outcome::InDoubt(doubt),
        (ChargeStatus::Declined, _) => Outcome::Declined { code: code(decline_code) },
        (ChargeStatus::Other, _) => Outcome::InDoubt(Doubt::UnknownState),
    }
}

/// Returns the id; `None` if it is empty, too long, or not visible ASCII.
fn bounded_id(id: String) -> Option<String> {
    let fits = (1..=MAX_ID_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(id)
}

/// Returns whether an id of the provider is a safe path segment, and can be stored.
pub fn is_plain(id: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Returns the decline code, truncated to its column; `declined` if the provider gives none.
fn code(given: Option<String>) -> String {
    let given = visible(&given.unwrap_or_default(), MAX_CODE_CHARS);
    if given.is_empty() { "declined".to_owned() } else { given }
}

/// Returns the visible ASCII characters of a text of the provider, at most so many.
fn visible(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_graphic).take(most).collect()
}

/// Returns the amount. Some providers write currencies in small letters. The caller checks whether it is the expected
/// amount.
fn money(minor: i64, currency: &str) -> Result<Money, Doubt> {
    let read = Currency::stored(&currency.to_ascii_uppercase());
    read.map(|currency| Money::new(minor, currency)).map_err(|_| {
        let currency = visible(currency, MAX_CURRENCY_CHARS);
        Doubt::OtherAmount(format!("{minor} {currency:?}"))
    })
}
