//! The JSON answers of the provider, and their conversion.

use crate::{
    domain::{AttemptKey, Doubt, Outcome, Refund, RefundKey, RefundOutcome},
    provider::{ChargeStatus, MAX_CODE_CHARS, ProviderError, bounded_id, money, outcome, visible},
};
use serde::Deserialize;
use stampede_vocab::Money;

/// The provider's record of one charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRecord {
    /// The attempt that it charges; `None` for a charge that is not of this shop.
    pub key: Option<AttemptKey>,
    /// The refunded amount; `None` if it cannot be read.
    pub refunded: Option<Money>,
    /// Whether all of it was refunded: no other refund of it is to come.
    pub is_given_back: bool,
    /// The outcome so far.
    pub outcome: Outcome,
}

/// A page of the provider's list of refunds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundPage {
    /// The ids of the charges whose refunds have keys that this service does not send.
    pub foreign: Vec<String>,
    /// Those of them with a refund that may still be done.
    pub pending: Vec<String>,
    /// The id of the last refund on the page; `None` if it is empty.
    pub last: Option<String>,
    pub has_more: bool,
}

#[derive(Deserialize)]
pub(super) struct ChargeAnswer {
    id: String,
    key: Option<String>,
    status: ChargeStatus,
    amount_minor: i64,
    currency: String,
    decline_code: Option<String>,
    #[serde(default)]
    refunded_minor: i64,
}

/// The status of a refund in the words of the provider.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RefundStatus {
    Pending,
    #[serde(alias = "succeeded")]
    Refunded,
    #[serde(alias = "canceled", alias = "cancelled")]
    Failed,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
pub(super) struct RefundAnswer {
    id: String,
    status: RefundStatus,
    amount_minor: i64,
    currency: String,
}

#[derive(Deserialize)]
pub(super) struct RefundListAnswer {
    refunds: Vec<ListedRefund>,
    has_more: bool,
}

#[derive(Deserialize)]
struct ListedRefund {
    id: String,
    key: Option<String>,
    charge_id: String,
    status: Option<RefundStatus>,
}

#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    error: ErrorCode,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: String,
}

impl ChargeAnswer {
    /// Returns the outcome of the charge. A charge that is partly or fully refunded is in doubt: it does not pay for
    /// the goods.
    pub(super) fn into_outcome(self) -> Result<Outcome, ProviderError> {
        let amount = money(self.amount_minor, &self.currency).and_then(|amount| self.kept(amount));
        Ok(outcome(&self.status, readable_id(self.id)?, amount, self.decline_code))
    }

    fn kept(&self, amount: Money) -> Result<Money, Doubt> {
        match self.refunded_minor {
            0 => Ok(amount),
            refunded => Err(Doubt::OtherAmount(format!("{amount}, of which {refunded} were refunded"))),
        }
    }

    /// Returns the charge as the provider has it. A key or refunded amount that cannot be read is left out. Fails if
    /// the id cannot be read.
    pub(super) fn into_record(self) -> Result<ChargeRecord, ProviderError> {
        let refunded = money(self.refunded_minor, &self.currency).ok();
        let key = self.key.as_deref().and_then(|key| key.parse().ok());
        let is_given_back = self.refunded_minor > 0 && self.refunded_minor >= self.amount_minor;
        Ok(ChargeRecord { key, refunded, is_given_back, outcome: self.into_outcome()? })
    }
}

impl RefundAnswer {
    /// Returns the outcome of the refund. A refund of another amount is in doubt.
    pub(super) fn into_outcome(self, asked: &Refund) -> Result<RefundOutcome, ProviderError> {
        let refund_id = readable_id(self.id)?;
        Ok(match (self.status, money(self.amount_minor, &self.currency)) {
            (RefundStatus::Pending, _) => RefundOutcome::Unresolved,
            (RefundStatus::Failed, _) => RefundOutcome::InDoubt(Doubt::Failed),
            (RefundStatus::Other, _) => RefundOutcome::InDoubt(Doubt::UnknownState),
            (RefundStatus::Refunded, Ok(amount)) if amount == asked.amount => {
                RefundOutcome::Refunded { refund_id: Some(refund_id) }
            }
            (RefundStatus::Refunded, Ok(amount)) => RefundOutcome::InDoubt(Doubt::OtherAmount(amount.to_string())),
            (RefundStatus::Refunded, Err(doubt)) => RefundOutcome::InDoubt(doubt),
        })
    }
}

impl RefundListAnswer {
    /// Returns the charges that have refunds whose keys this service does not send. Fails if the id of the last refund,
    /// from which the next page continues, cannot be read.
    pub(super) fn into_page(self) -> Result<RefundPage, ProviderError> {
        let last = self.refunds.last().map(|refund| readable_id(refund.id.clone())).transpose()?;
        let is_foreign =
            |refund: &ListedRefund| refund.key.as_deref().is_none_or(|key| key.parse::<RefundKey>().is_err());
        let (mut foreign, mut pending) = (Vec::new(), Vec::new());
        for refund in self.refunds.into_iter().filter(is_foreign) {
            if matches!(refund.status, Some(RefundStatus::Pending | RefundStatus::Other)) {
                pending.push(refund.charge_id.clone());
            }
            foreign.push(refund.charge_id);
        }
        Ok(RefundPage { foreign, pending, last, has_more: self.has_more })
    }
}

impl ErrorAnswer {
    /// Returns the provider's own code, truncated to its column.
    pub(super) fn into_code(self) -> String {
        visible(&self.error.code, MAX_CODE_CHARS)
    }
}

fn readable_id(id: String) -> Result<String, ProviderError> {
    bounded_id(id)
        .ok_or_else(|| ProviderError::Unreadable("the id is not 1 to 255 visible ASCII characters".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use stampede_vocab::{PaymentId, Timestamp};
    use uuid::Uuid;

    fn eur(minor: i64) -> Money {
        Money::new(minor, "EUR".parse().unwrap())
    }

    fn charge(changed: &Value) -> Outcome {
        let mut answer = json!({"id": "ch_1", "status": "captured", "amount_minor": 500, "currency": "EUR"});
        answer.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        serde_json::from_value::<ChargeAnswer>(answer).unwrap().into_outcome().unwrap()
    }

    fn refund(changed: &Value) -> RefundOutcome {
        let of = AttemptKey { payment_id: PaymentId::from_uuid(Uuid::from_u128(1)), attempt: 1 };
        let asked = Refund::request(of, Some("ch_1".to_owned()), eur(500), Timestamp::from_micros(0));
        let mut answer = json!({"id": "re_1", "status": "refunded", "amount_minor": 500, "currency": "EUR"});
        answer.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        serde_json::from_value::<RefundAnswer>(answer).unwrap().into_outcome(&asked).unwrap()
    }

    #[test]
    fn a_charge_is_what_its_status_amount_and_currency_say() {
        let captured = Outcome::Captured { charge_id: Some("ch_1".to_owned()), amount: eur(500) };
        assert_eq!(charge(&json!({})), captured);
        assert_eq!(charge(&json!({"currency": "eur"})), captured);
        assert_eq!(charge(&json!({"status": "pending"})), Outcome::Unresolved);
        assert_eq!(charge(&json!({"status": "disputed"})), Outcome::InDoubt(Doubt::UnknownState));
        for unknown in ["gold", "E1R"] {
            let doubt = Doubt::OtherAmount(format!("500 \"{unknown}\""));
            assert_eq!(charge(&json!({"currency": unknown})), Outcome::InDoubt(doubt));
        }
    }

    #[test]
    fn a_charge_of_which_something_was_given_back_is_no_capture() {
        let given_back = Doubt::OtherAmount("500 EUR, of which 100 were refunded".to_owned());
        assert_eq!(charge(&json!({"refunded_minor": 100})), Outcome::InDoubt(given_back));
        assert!(matches!(charge(&json!({"refunded_minor": 0})), Outcome::Captured { .. }));
        let declined = charge(&json!({"status": "declined", "refunded_minor": 0}));
        assert_eq!(declined, Outcome::Declined { code: "declined".to_owned() });
    }

    #[test]
    fn an_id_that_could_not_be_stored_makes_an_answer_unreadable() {
        for odd in [String::new(), "a b".to_owned(), "ch_\u{1f389}".to_owned(), "x".repeat(256)] {
            let answer = json!({"id": odd, "status": "captured", "amount_minor": 500, "currency": "EUR"});
            let outcome = serde_json::from_value::<ChargeAnswer>(answer).unwrap().into_outcome();
            assert!(matches!(outcome, Err(ProviderError::Unreadable(_))), "{odd}");
        }
    }

    #[test]
    fn a_refund_is_done_only_as_a_whole_and_in_its_currency() {
        let done = RefundOutcome::Refunded { refund_id: Some("re_1".to_owned()) };
        for status in ["refunded", "succeeded"] {
            assert_eq!(refund(&json!({"status": status})), done);
        }
        assert_eq!(refund(&json!({"status": "pending"})), RefundOutcome::Unresolved);
        for (changed, doubt) in [
            (json!({"status": "failed"}), Doubt::Failed),
            (json!({"status": "requires_action"}), Doubt::UnknownState),
            (json!({"amount_minor": 1}), Doubt::OtherAmount("1 EUR".to_owned())),
            (json!({"currency": "USD"}), Doubt::OtherAmount("500 USD".to_owned())),
        ] {
            assert_eq!(refund(&changed), RefundOutcome::InDoubt(doubt), "{changed}");
        }
    }

    #[test]
    fn a_page_of_refunds_names_those_of_others() {
        let ours = format!("{}:1:refund", PaymentId::from_uuid(Uuid::from_u128(1)));
        let listed = |id: &str, key: Option<&str>| json!({"id": id, "key": key, "charge_id": format!("ch_of_{id}")});
        let refunds = [listed("re_1", Some("by-hand")), listed("re_2", Some(&ours)), listed("re_3", None)];
        let answer = json!({"refunds": refunds, "has_more": true});
        let page = serde_json::from_value::<RefundListAnswer>(answer).unwrap().into_page().unwrap();
        assert_eq!(page.foreign, ["ch_of_re_1", "ch_of_re_3"]);
        assert_eq!((page.last.as_deref(), page.has_more), (Some("re_3"), true));
        assert_eq!(page.pending, Vec::<String>::new(), "no status says that one is");
    }

    #[test]
    fn a_page_of_refunds_names_those_of_others_that_may_still_be_done() {
        let listed = |status: &str| json!({"id": "re_1", "key": null, "charge_id": status, "status": status});
        let refunds = ["pending", "refunded", "failed", "requires_action"].map(listed);
        let answer = json!({"refunds": refunds, "has_more": false});
        let page = serde_json::from_value::<RefundListAnswer>(answer).unwrap().into_page().unwrap();
        assert_eq!(page.foreign.len(), 4);
        assert_eq!(page.pending, ["pending", "requires_action"]);
    }
}
