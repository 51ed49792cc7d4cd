//! The till: decides about charges and refunds, one at a time. Each decision is written to the journal before the
//! book shows it. It does not wait: cards that are slow are slow in [`crate::api`].

use std::{
    collections::HashSet,
    path::Path,
    sync::{Mutex, MutexGuard},
};

use crate::{
    book::{Book, Charge, ChargeStatus, Entry, Refund},
    card::Card,
    failure::Failure,
    journal::Journal,
};

/// A charge that is asked for; already checked.
#[derive(Debug)]
pub(crate) struct ChargeOrder {
    pub key: String,
    pub amount_minor: i64,
    pub currency: String,
    pub payment_method: String,
    pub card: Card,
}

/// A refund that is asked for; already checked.
#[derive(Debug)]
pub(crate) struct RefundOrder {
    pub key: String,
    pub charge_id: String,
    pub amount_minor: i64,
}

/// Whether a request did something, or had done it before under the same key.
#[derive(Debug, PartialEq)]
pub(crate) enum Done<T> {
    /// For the first time.
    Now(T),
    /// A repeat: as it was then, and as it stands now.
    Before(T),
}

/// Takes and gives back money, one decision at a time.
pub(crate) struct Till {
    drawer: Mutex<Drawer>,
}

struct Drawer {
    book: Book,
    journal: Journal,
    /// Keys whose first request was lost on purpose. Not journalled: what was lost left no trace.
    lost: HashSet<String>,
}

impl Till {
    /// Opens the till with the book of this journal.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Till> {
        let (journal, book) = Journal::open(path)?;
        let drawer = Drawer { book, journal, lost: HashSet::new() };
        Ok(Till { drawer: Mutex::new(drawer) })
    }

    fn drawer(&self) -> MutexGuard<'_, Drawer> {
        self.drawer.lock().expect("no decision panics while it holds the till")
    }

    /// Charges, once for each key.
    pub(crate) fn charge(&self, order: &ChargeOrder) -> Result<Done<Charge>, Failure> {
        let mut drawer = self.drawer();
        if let Some(charge) = drawer.book.charge_by_key(&order.key) {
            return if same_charge(charge, order) { Ok(Done::Before(charge.clone())) } else { Err(Failure::KeyReused) };
        }
        let loses = order.card == Card::TimeoutLost;
        if loses && drawer.lost.insert(order.key.clone()) {
            return Err(Failure::Lost);
        }
        let charge = new_charge(drawer.book.next_charge_id(), order);
        drawer.record(Entry::Charged(charge.clone()))?;
        drawer.lost.remove(&order.key);
        Ok(Done::Now(charge))
    }

    /// Captures a pending charge. One that is captured already stays as it is.
    pub(crate) fn capture(&self, charge_id: &str) -> Result<Charge, Failure> {
        let mut drawer = self.drawer();
        let charge = drawer.book.charge(charge_id).ok_or(Failure::ChargeNotFound)?;
        if charge.status == ChargeStatus::Pending {
            drawer.record(Entry::Captured { charge_id: charge_id.to_owned() })?;
        }
        drawer.book.charge(charge_id).cloned().ok_or(Failure::ChargeNotFound)
    }

    /// Gives money back, once for each key, and never more than was captured.
    pub(crate) fn refund(&self, order: &RefundOrder) -> Result<Done<Refund>, Failure> {
        let mut drawer = self.drawer();
        if let Some(refund) = drawer.book.refund_by_key(&order.key) {
            let same = refund.charge_id == order.charge_id && refund.amount_minor == order.amount_minor;
            return if same { Ok(Done::Before(refund.clone())) } else { Err(Failure::KeyReused) };
        }
        let charge = drawer.book.charge(&order.charge_id).ok_or(Failure::ChargeNotFound)?;
        let refundable_minor = charge.refundable_minor();
        if order.amount_minor > refundable_minor {
            return Err(Failure::RefundTooLarge { wanted_minor: order.amount_minor, refundable_minor });
        }
        let refund = Refund {
            id: drawer.book.next_refund_id(),
            key: order.key.clone(),
            charge_id: order.charge_id.clone(),
            amount_minor: order.amount_minor,
            currency: charge.currency.clone(),
        };
        drawer.record(Entry::Refunded(refund.clone()))?;
        Ok(Done::Now(refund))
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.drawer().book)
    }
}

impl Drawer {
    fn record(&mut self, entry: Entry) -> Result<(), Failure> {
        self.journal.append(&entry).map_err(|error| {
            tracing::error!(error.cause = %error, "the journal cannot be written");
            Failure::BookClosed
        })?;
        self.book.apply(entry);
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
    }
}
