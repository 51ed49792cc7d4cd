//! An anomaly as it is stored and shown, and the decisions that it allows.

use crate::{
    messages::{
        schemas::Schemas,
        text::{age, printable, seconds_since, time},
    },
    output::{row, table},
};
use clap::ValueEnum;
use comfy_table::Table;
use serde::Serialize;
use sqlx::FromRow;
use stampede_db::Statement;
use stampede_vocab::{OrderId, PaymentId, Service, Timestamp};
use std::fmt::{self, Display};
use uuid::Uuid;

/// Longest detail in a table.
const DETAIL: usize = 60;
/// Longest text of foreign origin in the output for people.
const TEXT: usize = 2_000;

const COLUMNS: &str = "a.id, a.payment_id, a.attempt, a.subject, a.kind, a.detail, a.state, a.found_us, a.verdict, \
     a.decided_by, a.decided_why, a.decided_us, a.settled_us, p.order_id, p.state AS payment_state, \
     p.amount_minor, p.currency, t.state AS attempt_state, t.provider_charge_id, r.state AS refund_state";

const TABLES: &str = "anomalies a LEFT JOIN payments p ON p.id = a.payment_id \
     LEFT JOIN attempts t ON t.payment_id = a.payment_id AND t.attempt = a.attempt \
     LEFT JOIN refunds r ON r.payment_id = a.payment_id AND r.attempt = a.attempt";

/// The stored anomaly, and the state of its payment.
#[derive(Debug, FromRow)]
struct Row {
    id: i64,
    payment_id: Uuid,
    attempt: i32,
    subject: String,
    kind: String,
    detail: String,
    state: String,
    found_us: i64,
    verdict: Option<String>,
    decided_by: Option<String>,
    decided_why: Option<String>,
    decided_us: Option<i64>,
    settled_us: Option<i64>,
    order_id: Option<Uuid>,
    payment_state: Option<String>,
    amount_minor: Option<i64>,
    currency: Option<String>,
    attempt_state: Option<String>,
    provider_charge_id: Option<String>,
    refund_state: Option<String>,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// Query the provider again
    Retry,
    /// The buyer has not paid by this charge, or has the money back already
    Declined,
    /// The buyer has the whole money back; the goods come back
    Refunded,
    /// It was reviewed, and nothing is to be changed
    Noted,
}

/// An anomaly, and the state of its payment.
#[derive(Debug, Clone, Serialize)]
pub struct Anomaly {
    pub id: i64,
    payment_id: String,
    order_id: Option<String>,
    /// The key at the provider.
    key: String,
    subject: String,
    kind: String,
    detail: String,
    /// OPEN, DECIDED or SETTLED.
    pub state: String,
    found_time: String,
    age_s: f64,
    amount_minor: Option<i64>,
    currency: Option<String>,
    payment_state: Option<String>,
    attempt_state: Option<String>,
    provider_charge_id: Option<String>,
    refund_state: Option<String>,
    /// The decisions that are possible now.
    pub verdicts: Vec<Verdict>,
    decided: Option<Decided>,
    settled_time: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Decided {
    verdict: String,
    by: String,
    why: String,
    time: Option<String>,
}

impl Anomaly {
    /// Returns whether this decision was carried out, which it is not if the provider's outcome came first.
    pub fn is_settled_as(&self, verdict: Verdict) -> bool {
        let decided = self.decided.as_ref().filter(|_| self.state == "SETTLED");
        decided.is_some_and(|decided| decided.verdict == verdict.as_str())
    }
}

impl Verdict {
    /// Returns the name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "RETRY",
            Self::Declined => "DECLINED",
            Self::Refunded => "REFUNDED",
            Self::Noted => "NOTED",
        }
    }

    pub const fn effect(self) -> &'static str {
        match self {
            Self::Retry => {
                "the provider is queried again; a request that it never received is sent again while it keeps the key"
            }
            Self::Declined => "the attempt is declined, and its order goes on without that money",
            Self::Refunded => "the refund is done, its order is refunded, and units, gift and coupon come back",
            Self::Noted => "nothing is changed; it is not listed as open any more",
        }
    }
}

/// The kinds of a refund that the payment service has not requested: of the whole charge, and of a part.
const REFUNDED_ELSEWHERE: &str = "REFUNDED_ELSEWHERE";
const PARTLY_REFUNDED_ELSEWHERE: &str = "PARTLY_REFUNDED_ELSEWHERE";

/// Returns the kind that an anomaly has today. An earlier release had one kind for a refund of the whole and of a part;
/// the detail says which it is, as in "100 EUR of the 500 EUR that ... captured".
fn kind_of(stored: String, detail: &str) -> String {
    let amounts =
        detail.split_once(" of the ").and_then(|(refunded, rest)| Some((refunded, rest.split_once(" that ")?.0)));
    let is_part = amounts.is_some_and(|(refunded, captured)| refunded != captured);
    if stored == REFUNDED_ELSEWHERE && is_part { PARTLY_REFUNDED_ELSEWHERE.to_owned() } else { stored }
}

/// The states of the payment, the attempt and the refund of an anomaly.
#[derive(Debug, Clone, Copy, Default)]
struct Standing<'a> {
    payment: Option<&'a str>,
    attempt: Option<&'a str>,
    refund: Option<&'a str>,
}

/// Returns the decisions that an anomaly allows. A parked charge or refund has to go on, so it cannot only be noted. A
/// refund of the whole by hand is booked, or noted if the buyer keeps the goods.
fn verdicts(state: &str, (subject, kind): (&str, &str), now: Standing<'_>) -> Vec<Verdict> {
    if state != "OPEN" {
        return Vec::new();
    }
    match (subject, now) {
        ("CHARGE", Standing { attempt: Some("PARKED"), .. }) => vec![Verdict::Retry, Verdict::Declined],
        ("REFUND", Standing { refund: Some("PARKED"), .. }) => vec![Verdict::Retry, Verdict::Refunded],
        // An attempt that is approved and has no refund is the one that has paid.
        ("REFUND", Standing { payment: Some("CAPTURED"), attempt: Some("APPROVED"), refund: None })
            if kind == REFUNDED_ELSEWHERE =>
        {
            vec![Verdict::Refunded, Verdict::Noted]
        }
        _ => vec![Verdict::Noted],
    }
}

/// Returns the anomalies that `condition` lets through, in the order in which they were found.
pub async fn read(schemas: &Schemas, condition: impl FnOnce(&mut Statement)) -> anyhow::Result<Vec<Anomaly>> {
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM ", TABLES, " WHERE "]);
    condition(&mut query);
    let rows: Vec<Row> = schemas.read(Service::Payment, "anomalies", query).await?;
    let now = Timestamp::now();
    Ok(rows.into_iter().map(|row| row.into_anomaly(now)).collect())
}

/// Returns one anomaly; `None` if there is none of this id.
pub async fn find(schemas: &Schemas, id: i64) -> anyhow::Result<Option<Anomaly>> {
    let found = read(schemas, |query| {
        query.push("a.id = ").push_bind(id);
    });
    Ok(found.await?.into_iter().next())
}

pub fn anomalies_table(anomalies: &[Anomaly]) -> Table {
    let mut shown = table(["id", "about", "kind", "state", "payment", "order", "what"], ["age"]);
    for one in anomalies {
        let detail = printable(&one.detail, DETAIL);
        let order = one.order_id.as_deref().unwrap_or("none");
        let id = one.id.to_string();
        let names = [id.as_str(), one.subject.as_str(), &one.kind, &one.state, &one.payment_id, order, &detail];
        shown.add_row(row(names, [age(one.age_s)]));
    }
    shown
}

impl Row {
    fn into_anomaly(self, now: Timestamp) -> Anomaly {
        let payment_id = PaymentId::from_uuid(self.payment_id).to_string();
        let decided = self.verdict.map(|verdict| Decided {
            verdict,
            by: self.decided_by.unwrap_or_default(),
            why: self.decided_why.unwrap_or_default(),
            time: self.decided_us.map(time),
        });
        let standing = Standing {
            payment: self.payment_state.as_deref(),
            attempt: self.attempt_state.as_deref(),
            refund: self.refund_state.as_deref(),
        };
        let kind = kind_of(self.kind, &self.detail);
        Anomaly {
            id: self.id,
            key: format!("{payment_id}:{}", self.attempt),
            payment_id,
            order_id: self.order_id.map(|id| OrderId::from_uuid(id).to_string()),
            verdicts: verdicts(&self.state, (self.subject.as_str(), kind.as_str()), standing),
            subject: self.subject,
            kind,
            detail: self.detail,
            state: self.state,
            found_time: time(self.found_us),
            age_s: seconds_since(self.found_us, now),
            amount_minor: self.amount_minor,
            currency: self.currency,
            payment_state: self.payment_state,
            attempt_state: self.attempt_state,
            provider_charge_id: self.provider_charge_id,
            refund_state: self.refund_state,
            decided,
            settled_time: self.settled_us.map(time),
        }
    }
}

impl Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| printable(text.as_deref().unwrap_or("none"), TEXT);
        writeln!(f, "anomaly {}, {} {}: {}", self.id, self.subject, self.kind, self.state)?;
        writeln!(f, "  what      {}", printable(&self.detail, TEXT))?;
        writeln!(f, "  found     {}, {} ago", self.found_time, age(self.age_s))?;
        writeln!(f, "  key       {}, charge {}", self.key, or_none(&self.provider_charge_id))?;
        let amount = self.amount_minor.zip(self.currency.as_deref());
        let amount = amount.map_or_else(|| "none".to_owned(), |(minor, currency)| format!("{minor} {currency}"));
        writeln!(f, "  order     {}, to be paid: {amount}", or_none(&self.order_id))?;
        writeln!(
            f,
            "  now       payment {}, attempt {}, refund {}",
            or_none(&self.payment_state),
            or_none(&self.attempt_state),
            or_none(&self.refund_state)
        )?;
        if let Some(decided) = &self.decided {
            let at = decided.time.as_deref().unwrap_or("no known time");
            let (by, why) = (printable(&decided.by, TEXT), printable(&decided.why, TEXT));
            writeln!(f, "  decided   {} by {by} at {at}: {why}", decided.verdict)?;
        }
        for verdict in &self.verdicts {
            writeln!(f, "  --as {:<9} {}", verdict.as_str().to_ascii_lowercase(), verdict.effect())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parked_goes_on_and_what_is_not_is_noted() {
        let charge = |attempt| verdicts("OPEN", ("CHARGE", "REFUSED"), Standing { attempt, ..Standing::default() });
        assert_eq!(charge(Some("PARKED")), [Verdict::Retry, Verdict::Declined]);
        assert_eq!(charge(Some("APPROVED")), [Verdict::Noted]);
        let parked = Standing { payment: Some("REFUNDING"), attempt: Some("APPROVED"), refund: Some("PARKED") };
        assert_eq!(verdicts("OPEN", ("REFUND", "FAILED"), parked), [Verdict::Retry, Verdict::Refunded]);
        for decided in ["DECIDED", "SETTLED"] {
            assert_eq!(verdicts(decided, ("REFUND", "FAILED"), parked), []);
        }
    }

    #[test]
    fn what_was_given_back_by_hand_is_booked_only_as_a_whole_and_where_it_is_kept() {
        let kept = Standing { payment: Some("CAPTURED"), attempt: Some("APPROVED"), refund: None };
        assert_eq!(verdicts("OPEN", ("REFUND", REFUNDED_ELSEWHERE), kept), [Verdict::Refunded, Verdict::Noted]);
        assert_eq!(verdicts("OPEN", ("REFUND", PARTLY_REFUNDED_ELSEWHERE), kept), [Verdict::Noted]);
        for other in [
            Standing { payment: Some("OPEN"), attempt: Some("UNKNOWN"), refund: None },
            Standing { attempt: Some("DECLINED"), ..kept },
            Standing { payment: Some("REFUNDING"), refund: Some("REQUESTED"), ..kept },
            Standing { payment: Some("REFUNDED"), refund: Some("REFUNDED"), ..kept },
        ] {
            assert_eq!(verdicts("OPEN", ("REFUND", REFUNDED_ELSEWHERE), other), [Verdict::Noted], "{other:?}");
        }
    }

    #[test]
    fn a_refund_of_a_part_is_known_by_its_detail_too() {
        let kind = |stored: &str, detail| kind_of(stored.to_owned(), detail);
        let (part, whole) =
            ("100 EUR of the 500 EUR that pay_1:1 captured", "500 EUR of the 500 EUR that pay_1:1 captured");
        assert_eq!(kind(REFUNDED_ELSEWHERE, part), PARTLY_REFUNDED_ELSEWHERE);
        assert_eq!(kind(REFUNDED_ELSEWHERE, whole), REFUNDED_ELSEWHERE);
        assert_eq!(kind(REFUNDED_ELSEWHERE, "odd"), REFUNDED_ELSEWHERE);
        assert_eq!(kind("REFUSED", part), "REFUSED");
    }
}
