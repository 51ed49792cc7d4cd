//! Stock and its ledger as values: what there is, who has what, which orders it is enough for. No I/O, no clock.

mod ledger;
mod outgoing;
mod repair;
mod reservation;
mod shelf;
mod stock;
mod titles;

pub use ledger::{
    Ask, Buyers, Changes, Entry, EntryState, ItemChange, LateAnswer, LedgerBatch, OrderedLine, OrderedUnits,
};
pub use outgoing::{Answer, OutgoingMessage, RejectReason};
pub use repair::{Copied, CopiedItem, CopyWork, Drift, Position, Repairs, Restore};
pub use reservation::{Grant, Label, Refusal, RefusalReason, ReservationOutcome, ReservedUnits};
pub use shelf::{Offered, Shelf, ShelfItem, Window, Withdrawal};
pub use stock::{Committed, Item, StockLevel, StockView};
pub use titles::Titles;
