//! The stock and its ledger as values, and the decisions on them. No I/O, no clock.

mod ledger;
mod outgoing;
mod repair;
mod reservation;
mod shelf;
mod stock;
mod titles;

pub use ledger::{
    Buyers, Changes, Entry, EntryState, ItemChange, LateAnswer, LedgerBatch, LedgerCommand, OrderedLine, OrderedUnits,
};
pub use outgoing::{MessageBody, OutgoingMessage, RejectReason};
pub use repair::{CopyCursor, Drift, EventCopy, ItemCopy, Position, Repairs, Restore};
pub use reservation::{Grant, Label, Refusal, RefusalReason, ReservationOutcome, ReservedUnits};
pub use shelf::{COMMIT_GRACE, Offered, Shelf, ShelfItem, Window, Withdrawal};
pub use stock::{Committed, Item, LastGrant, StockLevel, StockView};
pub use titles::Titles;
