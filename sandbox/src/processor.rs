//! Processes charges and refunds, one at a time. Each decision is written to the journal before the records show it. It
//! does not wait: slow cards are slow in [`crate::api`].

use crate::{
    card::{Card, RefundEnd},
    failure::Failure,
    journal::Journal,
    records::{Charge, ChargeStatus, Entry, Records, Refund, RefundStatus},
};
use std::{
    collections::HashSet,
    path::Path,
    sync::{Mutex, MutexGuard},
};

/// A requested charge, already validated.
#[derive(Debug)]
pub(crate) struct ChargeOrder {
    pub key: String,
    pub amount_minor: i64,
    pub currency: String,
    pub payment_method: String,
    pub card: Card,
}

/// A requested refund, already validated.
#[derive(Debug)]
pub(crate) struct RefundOrder {
    pub key: String,
    pub charge_id: String,
    pub amount_minor: i64,
    pub end: RefundEnd,
}

/// The result of a request: new, or that of an earlier request under the same key.
#[derive(Debug, PartialEq)]
pub(crate) enum Processed<T> {
    /// For the first time.
    New(T),
    /// A repeat, with the present status, which may have changed since.
    Repeat(T),
}

/// Charges and refunds, one decision at a time.
pub(crate) struct Processor {
    state: Mutex<State>,
}

struct State {
    records: Records,
    journal: Journal,
    /// Keys whose first request was lost on purpose. Not journalled: a lost request leaves no trace.
    lost: HashSet<String>,
}

impl Processor {
    /// Opens the processor with the records of this journal.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Processor> {
        let (journal, records) = Journal::open(path)?;
        let state = State { records, journal, lost: HashSet::new() };
        Ok(Processor { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no decision panics while it holds the lock")
    }

    /// Charges, once for each key.
    pub(crate) fn charge(&self, order: &ChargeOrder) -> Result<Processed<Charge>, Failure> {
        let mut state = self.state();
        if let Some(charge) = state.records.charge_by_key(&order.key) {
            return if same_charge(charge, order) {
                Ok(Processed::Repeat(charge.clone()))
            } else {
                Err(Failure::KeyReused)
            };
        }
        let loses = order.card == Card::TimeoutLost;
        // Lost the first time only: a repeat under the same key must be able to succeed.
        if loses && state.lost.insert(order.key.clone()) {
            return Err(Failure::Lost);
        }
        let charge = new_charge(state.records.next_charge_id(), order);
        state.record(Entry::Charged(charge.clone()))?;
        state.lost.remove(&order.key);
        Ok(Processed::New(charge))
    }

    /// Captures a pending charge. One that is captured already stays as it is.
    pub(crate) fn capture(&self, charge_id: &str) -> Result<Charge, Failure> {
        let mut state = self.state();
        let charge = state.records.charge(charge_id).ok_or(Failure::ChargeNotFound)?;
        if charge.status == ChargeStatus::Pending {
            state.record(Entry::Captured { charge_id: charge_id.to_owned() })?;
        }
        state.records.charge(charge_id).cloned().ok_or(Failure::ChargeNotFound)
    }

    /// Gives money back, or begins to, once for each key, and never more than was captured.
    pub(crate) fn refund(&self, order: &RefundOrder) -> Result<Processed<Refund>, Failure> {
        let mut state = self.state();
        if let Some(refund) = state.records.refund_by_key(&order.key) {
            let same = refund.charge_id == order.charge_id && refund.amount_minor == order.amount_minor;
            return if same { Ok(Processed::Repeat(refund.clone())) } else { Err(Failure::KeyReused) };
        }
        let charge = state.records.charge(&order.charge_id).ok_or(Failure::ChargeNotFound)?;
        let refundable_minor = charge.refundable_minor();
        if order.amount_minor > refundable_minor {
            return Err(Failure::RefundTooLarge { wanted_minor: order.amount_minor, refundable_minor });
        }
        let refund = Refund {
            id: state.records.next_refund_id(),
            key: order.key.clone(),
            charge_id: order.charge_id.clone(),
            amount_minor: order.amount_minor,
            currency: charge.currency.clone(),
            status: match order.end {
                RefundEnd::AtOnce => RefundStatus::Refunded,
                RefundEnd::Late | RefundEnd::Failed => RefundStatus::Pending,
            },
        };
        state.record(Entry::Refunded(refund.clone()))?;
        Ok(Processed::New(refund))
    }

    /// Ends a pending refund. One that has ended already stays as it is.
    pub(crate) fn end_refund(&self, refund_id: &str, status: RefundStatus) -> Result<Refund, Failure> {
        let mut state = self.state();
        let refund = state.records.refund(refund_id).ok_or(Failure::RefundNotFound)?;
        if refund.status == RefundStatus::Pending {
            state.record(Entry::RefundEnded { refund_id: refund_id.to_owned(), status })?;
        }
        state.records.refund(refund_id).cloned().ok_or(Failure::RefundNotFound)
    }

    pub(crate) fn read<T>(&self, query: impl FnOnce(&Records) -> T) -> T {
        query(&self.state().records)
    }
}

impl State {
    fn record(&mut self, entry: Entry) -> Result<(), Failure> {
        self.journal.append(&entry).map_err(|error| {
            tracing::error!(error.cause = %error, "the journal cannot be written");
            Failure::JournalFailed
        })?;
        // After the journal: answers from the records survive a kill.
        self.records.apply(entry);
        Ok(())
    }
}

fn same_charge(charge: &Charge, order: &ChargeOrder) -> bool {
    charge.amount_minor == order.amount_minor
        && charge.currency == order.currency
        && charge.payment_method == order.payment_method
}

fn new_charge(id: String, order: &ChargeOrder) -> Charge {
    let decline_code = order.card.decline_code();
    let status = match order.card {
        Card::Late => ChargeStatus::Pending,
        _ if decline_code.is_some() => ChargeStatus::Declined,
        _ => ChargeStatus::Captured,
    };
    Charge {
        id,
        key: order.key.clone(),
        amount_minor: order.amount_minor,
        currency: order.currency.clone(),
        payment_method: order.payment_method.clone(),
        status,
        decline_code: decline_code.map(str::to_owned),
        refunded_minor: 0,
        pending_refunds_minor: 0,
    }
}
