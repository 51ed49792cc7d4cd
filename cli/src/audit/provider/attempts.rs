//! The attempts to pay, read in pages by the key of their payments.

use crate::audit::sources::Sources;
use sqlx::{Row, mysql::MySqlRow};
use stampede_vocab::PaymentId;
use std::collections::BTreeMap;

/// Payments of one page.
const PAGE: usize = 1_000;

/// One attempt, and the money that it has moved by our records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub number: i32,
    /// Whether it has reached a final state.
    pub has_ended: bool,
    /// Whether it has paid the order.
    pub has_captured: bool,
    /// Whether an operator has declined it, although the provider may have captured it.
    pub is_given_up: bool,
    /// What an operator knows of its refund at the provider, and has left at that.
    pub noted_refund: NotedRefund,
    pub captured_minor: i64,
    pub refunded_minor: i64,
    pub currency: String,
}

/// What an operator has noted of a refund at the provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NotedRefund {
    #[default]
    None,
    Part,
    Whole,
    /// It was done by our records, and has failed since.
    TakenBack,
}

/// A payment of the page.
struct Payment {
    id: PaymentId,
    currency: String,
    captured_attempt: Option<i32>,
    captured_minor: i64,
    refunded_minor: i64,
}

const PAYMENTS: &str = "SELECT id, currency, captured_attempt, captured_minor, refunded_minor FROM {payment}.payments \
     WHERE id > ? ORDER BY id LIMIT ";

/// The attempts of the payments of a page, from the first one on, and what operators have decided on each. An earlier
/// release gave a refund of a part the kind of one of the whole: of the whole is what says so by its amounts too.
const ATTEMPTS: &str = "SELECT a.payment_id, a.attempt, a.state IN ('APPROVED', 'DECLINED'), \
     EXISTS (SELECT 1 FROM {payment}.anomalies n WHERE n.payment_id = a.payment_id AND n.attempt = a.attempt \
     AND n.subject = 'CHARGE' AND n.state = 'SETTLED' AND n.verdict = 'DECLINED'), \
     EXISTS (SELECT 1 FROM {payment}.anomalies n WHERE n.payment_id = a.payment_id AND n.attempt = a.attempt \
     AND n.kind IN ('PARTLY_REFUNDED_ELSEWHERE', 'REFUNDED_ELSEWHERE') \
     AND n.state = 'SETTLED' AND n.verdict = 'NOTED'), \
     EXISTS (SELECT 1 FROM {payment}.anomalies n WHERE n.payment_id = a.payment_id AND n.attempt = a.attempt \
     AND n.kind = 'REFUNDED_ELSEWHERE' AND n.state = 'SETTLED' AND n.verdict = 'NOTED' \
     AND SUBSTRING_INDEX(n.detail, ' of the ', 1) \
         = SUBSTRING_INDEX(SUBSTRING_INDEX(n.detail, ' that ', 1), ' of the ', -1)), \
     EXISTS (SELECT 1 FROM {payment}.anomalies n WHERE n.payment_id = a.payment_id AND n.attempt = a.attempt \
     AND n.kind = 'REFUND_TAKEN_BACK' AND n.state = 'SETTLED' AND n.verdict = 'NOTED') FROM \
     (SELECT id FROM {payment}.payments WHERE id > ? ORDER BY id LIMIT {page}) p \
     JOIN {payment}.attempts a ON a.payment_id = p.id";

/// The state of an attempt, apart from its money.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    has_ended: bool,
    is_given_up: bool,
    noted_refund: NotedRefund,
}

impl Standing {
    fn read(row: &MySqlRow) -> anyhow::Result<Self> {
        let (part, whole, taken_back): (bool, bool, bool) = (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        // Of one that was taken back, all is refunded by our records: more than that was not noted.
        let noted_refund = match (part, whole, taken_back) {
            (_, _, true) => NotedRefund::TakenBack,
            (_, true, false) => NotedRefund::Whole,
            (true, false, false) => NotedRefund::Part,
            (false, false, false) => NotedRefund::None,
        };
        Ok(Self { has_ended: row.try_get(2)?, is_given_up: row.try_get(3)?, noted_refund })
    }
}

impl Payment {
    fn read(row: &MySqlRow) -> anyhow::Result<Self> {
        Ok(Self {
            id: PaymentId::try_from_bytes(row.try_get(0)?)?,
            currency: row.try_get(1)?,
            captured_attempt: row.try_get(2)?,
            captured_minor: row.try_get(3)?,
            refunded_minor: row.try_get(4)?,
        })
    }

    /// Returns one of its attempts.
    fn attempt(&self, number: i32, standing: Standing) -> Attempt {
        let has_captured = self.captured_attempt == Some(number);
        let moved = |minor| if has_captured { minor } else { 0 };
        let Standing { has_ended, is_given_up, noted_refund } = standing;
        Attempt {
            number,
            has_ended,
            has_captured,
            is_given_up,
            noted_refund,
            captured_minor: moved(self.captured_minor),
            refunded_minor: moved(self.refunded_minor),
            currency: self.currency.clone(),
        }
    }
}

/// The pages of all payments.
pub struct Pages<'s> {
    sources: &'s Sources,
    after: Vec<u8>,
}

impl<'s> Pages<'s> {
    /// Starts at the first payment.
    pub fn of(sources: &'s Sources) -> Self {
        Self { sources, after: Vec::new() }
    }

    /// Returns the attempts of the payments of the next page; none at the end. An attempt that has paid is among them
    /// even if it is not stored.
    pub async fn next(&mut self) -> anyhow::Result<BTreeMap<PaymentId, Vec<Attempt>>> {
        let payments = self.sources.rows_with(&format!("{PAYMENTS}{PAGE}"), self.after.clone()).await?;
        let attempts = ATTEMPTS.replace("{page}", &PAGE.to_string());
        let attempts = self.sources.rows_with(&attempts, self.after.clone()).await?;
        let payments = payments.iter().map(Payment::read).collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(last) = payments.last() {
            self.after = last.id.as_bytes().to_vec();
        }
        let mut stored: BTreeMap<PaymentId, BTreeMap<i32, Standing>> = BTreeMap::new();
        for row in &attempts {
            let payment = PaymentId::try_from_bytes(row.try_get(0)?)?;
            stored.entry(payment).or_default().insert(row.try_get(1)?, Standing::read(row)?);
        }
        let with_attempts = |payment: &Payment| {
            let mut numbers = stored.remove(&payment.id).unwrap_or_default();
            if let Some(number) = payment.captured_attempt {
                // An attempt that has paid has ended, whatever is stored.
                numbers.entry(number).or_default().has_ended = true;
            }
            let attempts = numbers.into_iter().map(|(number, standing)| payment.attempt(number, standing));
            (payment.id, attempts.collect())
        };
        Ok(payments.iter().map(with_attempts).collect())
    }
}
