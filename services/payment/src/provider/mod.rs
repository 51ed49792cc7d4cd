//! The adapter to the payment provider: charges, look-ups and refunds over HTTP, and the notices that it sends. It has
//! the provider's formats and no rules of payments, so that a second provider would be a second module.

mod breaker;
mod http;
mod notice;
mod signature;

pub use breaker::{Breaker, BreakerPolicy};
pub use http::{HttpProvider, LookUp};
pub use notice::{Notice, NoticeError, read_notice};
pub use signature::WebhookSecrets;

use crate::domain::Outcome;
use serde::Deserialize;
use stampede_vocab::Money;

/// Longest id of the provider's that is stored. A longer one is refused where it comes in: in the database it would be
/// refused with all that is written beside it.
const MAX_ID_CHARS: usize = 255;
/// Longest decline code that is kept.
const MAX_CODE_CHARS: usize = 64;

/// The status of a charge in the words of the provider.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChargeStatus {
    Pending,
    Captured,
    Declined,
}

/// Returns the outcome for a status of the provider; `None` if it captured an unreadable amount.
fn outcome(
    status: &ChargeStatus,
    charge_id: String,
    amount: Option<Money>,
    decline_code: Option<String>,
) -> Option<Outcome> {
    match status {
        ChargeStatus::Pending => Some(Outcome::Unresolved),
        ChargeStatus::Captured => Some(Outcome::Captured { charge_id: Some(charge_id), amount: amount? }),
        ChargeStatus::Declined => Some(Outcome::Declined { code: code(decline_code) }),
    }
}

/// Returns the id; `None` if it is longer than what is stored, empty, or not visible ASCII, as ids of providers are.
fn bounded_id(id: String) -> Option<String> {
    let fits = (1..=MAX_ID_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(id)
}

/// Returns the decline code, cut to what is stored; `declined` if the provider gives none.
fn code(given: Option<String>) -> String {
    let given: String = given.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(MAX_CODE_CHARS).collect();
    if given.is_empty() { "declined".to_owned() } else { given }
}

fn money(minor: i64, currency: &str) -> Option<Money> {
    Some(Money::new(minor, currency.parse().ok()?))
}
