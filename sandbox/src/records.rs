//! The records: every charge and refund there ever was, in memory. They only change by [`Records::apply`], which also
//! rebuilds them from the journal. This does no I/O and decides nothing about requests.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The status of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChargeStatus {
    /// The bank has not answered yet.
    Pending,
    Captured,
    /// Refused for good.
    Declined,
}

/// One charge, under one idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub id: String,
    pub key: String,
    pub amount_minor: i64,
    pub currency: String,
    pub payment_method: String,
    pub status: ChargeStatus,
    /// The reason for which it was declined.
    pub decline_code: Option<String>,
    /// Sum of its refunds that are done; never more than was captured.
    pub refunded_minor: i64,
    /// Sum of its refunds that are pending. Not in the journal, which has their entries.
    #[serde(skip)]
    pub pending_refunds_minor: i64,
}

impl Charge {
    /// Returns the amount that can still be refunded.
    pub(crate) fn refundable_minor(&self) -> i64 {
        match self.status {
            ChargeStatus::Captured => self.amount_minor - self.refunded_minor - self.pending_refunds_minor,
            ChargeStatus::Pending | ChargeStatus::Declined => 0,
        }
    }
}

/// The status of a refund.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    /// The money is not given back yet.
    Pending,
    /// Done: every one in a journal from before a refund had a status.
    #[default]
    Refunded,
    /// Not done, for good.
    Failed,
}

/// Money given back from one charge, or to be given back, under one idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub id: String,
    pub key: String,
    pub charge_id: String,
    pub amount_minor: i64,
    pub currency: String,
    #[serde(default)]
    pub status: RefundStatus,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry {
    Charged(Charge),
    /// A pending charge was captured.
    Captured {
        charge_id: String,
    },
    /// A refund was done, or begun if it is pending.
    Refunded(Refund),
    /// A pending refund was done, or has failed.
    RefundEnded {
        refund_id: String,
        status: RefundStatus,
    },
}

/// Every charge and refund, by id, key and age.
#[derive(Default)]
pub(crate) struct Records {
    charges: Vec<Charge>,
    refunds: Vec<Refund>,
    charge_by_id: HashMap<String, usize>,
    charge_by_key: HashMap<String, usize>,
    refund_by_id: HashMap<String, usize>,
    refund_by_key: HashMap<String, usize>,
}

impl Records {
    /// Applies an entry. An entry of an unknown charge or refund changes nothing.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Charged(charge) => self.add_charge(charge),
            Entry::Captured { charge_id } => {
                if let Some(charge) = self.charge_mut(&charge_id) {
                    charge.status = ChargeStatus::Captured;
                }
            }
            Entry::Refunded(refund) => self.add_refund(refund),
            Entry::RefundEnded { refund_id, status } => self.end_refund(&refund_id, status),
        }
    }

    fn add_charge(&mut self, charge: Charge) {
        let at = self.charges.len();
        self.charge_by_id.insert(charge.id.clone(), at);
        self.charge_by_key.insert(charge.key.clone(), at);
        self.charges.push(charge);
    }

    fn add_refund(&mut self, refund: Refund) {
        let Some(charge) = self.charge_mut(&refund.charge_id) else {
            return;
        };
        match refund.status {
            RefundStatus::Pending => charge.pending_refunds_minor += refund.amount_minor,
            RefundStatus::Refunded => charge.refunded_minor += refund.amount_minor,
            RefundStatus::Failed => {}
        }
        let at = self.refunds.len();
        self.refund_by_id.insert(refund.id.clone(), at);
        self.refund_by_key.insert(refund.key.clone(), at);
        self.refunds.push(refund);
    }

    fn end_refund(&mut self, id: &str, status: RefundStatus) {
        let at = self.refund_by_id.get(id).copied();
        let Some(refund) = at.and_then(|at| self.refunds.get_mut(at)) else {
            return;
        };
        if refund.status != RefundStatus::Pending || status == RefundStatus::Pending {
            return;
        }
        refund.status = status;
        let (charge_id, amount_minor) = (refund.charge_id.clone(), refund.amount_minor);
        if let Some(charge) = self.charge_mut(&charge_id) {
            charge.pending_refunds_minor -= amount_minor;
            if status == RefundStatus::Refunded {
                charge.refunded_minor += amount_minor;
            }
        }
    }

    fn charge_mut(&mut self, id: &str) -> Option<&mut Charge> {
        let at = *self.charge_by_id.get(id)?;
        self.charges.get_mut(at)
    }

    /// Returns the id that the next charge gets. Ids grow, so a list by id is a list by age.
    pub(crate) fn next_charge_id(&self) -> String {
        format!("ch_{:010}", self.charges.len() + 1)
    }

    /// Returns the id that the next refund gets.
    pub(crate) fn next_refund_id(&self) -> String {
        format!("re_{:010}", self.refunds.len() + 1)
    }

    pub(crate) fn charge(&self, id: &str) -> Option<&Charge> {
        self.charge_by_id.get(id).map(|at| &self.charges[*at])
    }

    pub(crate) fn charge_by_key(&self, key: &str) -> Option<&Charge> {
        self.charge_by_key.get(key).map(|at| &self.charges[*at])
    }

    pub(crate) fn refund(&self, id: &str) -> Option<&Refund> {
        self.refund_by_id.get(id).map(|at| &self.refunds[*at])
    }

    pub(crate) fn refund_by_key(&self, key: &str) -> Option<&Refund> {
        self.refund_by_key.get(key).map(|at| &self.refunds[*at])
    }

    /// Returns the charges after one of them, oldest first; from the start without one. `None` if there is no such
    /// charge.
    pub(crate) fn charges_after(&self, id: Option<&str>) -> Option<&[Charge]> {
        after(&self.charges, &self.charge_by_id, id)
    }

    /// Returns the refunds after one of them, oldest first; from the start without one. `None` if there is no such
    /// refund.
    pub(crate) fn refunds_after(&self, id: Option<&str>) -> Option<&[Refund]> {
        after(&self.refunds, &self.refund_by_id, id)
    }

    /// Returns the ids of the charges that wait to be captured.
    pub(crate) fn pending(&self) -> Vec<String> {
        let pending = self.charges.iter().filter(|charge| charge.status == ChargeStatus::Pending);
        pending.map(|charge| charge.id.clone()).collect()
    }

    /// Returns the refunds that wait for their end.
    pub(crate) fn pending_refunds(&self) -> Vec<Refund> {
        self.refunds.iter().filter(|refund| refund.status == RefundStatus::Pending).cloned().collect()
    }
}

fn after<'a, T>(rows: &'a [T], by_id: &HashMap<String, usize>, id: Option<&str>) -> Option<&'a [T]> {
    match id {
        None => Some(rows),
        Some(id) => by_id.get(id).map(|at| &rows[at + 1..]),
    }
}
