//! The payment provider, as this service speaks with it: charges, look-ups and refunds over HTTP, and the notices that
//! it sends. All knowledge of the provider's forms is here, and none of payments: a second provider would stand beside.

mod http;
mod notice;

pub use http::{HttpProvider, LookUp};
pub use notice::{Notice, NoticeError, read_notice};

use crate::domain::Outcome;
use serde::Deserialize;
use stampede_vocab::Money;

/// Longest decline code that is kept.
const MAX_CODE_CHARS: usize = 64;

/// How the provider says that a charge stands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChargeStatus {
    Pending,
    Captured,
    Declined,
}

/// The end of a charge, out of the provider's words.
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

/// A decline code that fits, with a plain one if the provider gives none.
fn code(given: Option<String>) -> String {
    let given: String = given.unwrap_or_default().chars().take(MAX_CODE_CHARS).collect();
    if given.is_empty() { "declined".to_owned() } else { given }
}

fn money(minor: i64, currency: &str) -> Option<Money> {
    Some(Money::new(minor, currency.parse().ok()?))
}
