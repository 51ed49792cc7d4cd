//! Transactions that a proxy breaks off: their connection is closed at one exact point, and a new one is not affected.
//!
//! To the client it looks like a restart of the server, and to the server like the death of a process. Both go on, so
//! that one test can break off many transactions.

use crate::proxy::contains;
use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Statements that begin and end a transaction, as they are sent to the database.
const BEGIN: &[u8] = b"\x03BEGIN";
const COMMIT: &[u8] = b"\x03COMMIT";
const ROLLBACK: &[u8] = b"\x03ROLLBACK";

/// The point at which a transaction is broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakAt {
    /// The write that identifies it does not reach the server.
    Write,
    /// Its COMMIT does not reach the server, which rolls it back.
    Commit,
    /// It is committed, and the client gets no answer.
    Answer,
}

impl BreakAt {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Write, Self::Commit, Self::Answer];
}

/// The transactions that have all of some texts in one of their writes, and the point at which they are broken off.
/// Clones share their state.
#[derive(Debug, Clone)]
pub struct Break(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    marks: Vec<Vec<u8>>,
    at: BreakAt,
    /// Whether it breaks off more than one.
    lasts: bool,
    is_set: AtomicBool,
    count: AtomicUsize,
}

impl Break {
    /// Returns how many transactions were broken off.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Breaks off no transaction from now on.
    pub fn mend(&self) {
        self.0.is_set.store(false, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }

    fn is_known_by(&self, write: &[u8]) -> bool {
        self.is_set() && self.0.marks.iter().all(|mark| contains(write, mark))
    }

    /// Returns whether it breaks a transaction off here.
    fn strikes(&self, at: BreakAt) -> bool {
        let strikes =
            self.0.at == at && if self.0.lasts { self.is_set() } else { self.0.is_set.swap(false, Ordering::AcqRel) };
        if strikes {
            self.0.count.fetch_add(1, Ordering::AcqRel);
        }
        strikes
    }
}

/// The fate of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// It is forwarded, and so is its answer.
    Whole,
    /// It is forwarded, and its answer is not.
    Unanswered,
    /// It is not forwarded.
    Broken,
}

/// The transaction on one connection, if there is one.
#[derive(Debug, Default)]
pub struct Transaction {
    is_open: bool,
    /// The breaks that its writes so far have matched.
    known: Vec<Break>,
}

/// The transactions to be broken off.
#[derive(Debug, Default)]
pub struct Breaks(Mutex<Vec<Break>>);

impl Breaks {
    /// Breaks off transactions that begin from now on: the first one, or all if it `lasts`.
    pub fn set(&self, marks: &[impl AsRef<str>], at: BreakAt, lasts: bool) -> Break {
        let marks = marks.iter().map(|mark| mark.as_ref().as_bytes().to_vec()).collect();
        let (is_set, count) = (AtomicBool::new(true), AtomicUsize::new(0));
        let new = Break(Arc::new(Inner { marks, at, lasts, is_set, count }));
        self.lock().push(new.clone());
        new
    }

    /// Returns the fate of the next write on the connection of this transaction.
    pub fn pass(&self, transaction: &mut Transaction, write: &[u8]) -> Passing {
        let known = {
            let mut all = self.lock();
            all.retain(Break::is_set);
            if all.is_empty() {
                *transaction = Transaction::default();
                return Passing::Whole;
            }
            if contains(write, BEGIN) {
                *transaction = Transaction { is_open: true, known: Vec::new() };
            }
            if !transaction.is_open {
                return Passing::Whole;
            }
            all.iter().filter(|one| one.is_known_by(write)).cloned().collect::<Vec<_>>()
        };
        if contains(write, ROLLBACK) {
            *transaction = Transaction::default();
            return Passing::Whole;
        }
        if contains(write, COMMIT) {
            return mem::take(transaction).commits();
        }
        let is_broken = strike(&known, BreakAt::Write);
        transaction.known.extend(known);
        if is_broken { Passing::Broken } else { Passing::Whole }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Break>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transaction {
    fn commits(self) -> Passing {
        if strike(&self.known, BreakAt::Commit) {
            Passing::Broken
        } else if strike(&self.known, BreakAt::Answer) {
            Passing::Unanswered
        } else {
            Passing::Whole
        }
    }
}

/// Returns whether any of them breaks the transaction off here. All that do are counted: it is their transaction.
fn strike(known: &[Break], at: BreakAt) -> bool {
    known.iter().filter(|one| one.strikes(at)).count() > 0
}
