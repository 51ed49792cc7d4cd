//! One file a verb. A use case opens the transaction, lets the domain decide, and has the store write; it knows
//! neither SQL nor the contracts.

mod apply_messages;
mod error;
mod reconcile;
mod release_holds;
mod release_orphans;
mod reserve_units;
mod stage_stock;
mod sync_redis;
mod unknown_events;
mod view_stock;

pub use apply_messages::{ApplyMessages, Batch, Effects, LedgerRequest};
pub use error::Error;
pub use reconcile::Reconcile;
pub use release_holds::{EventHold, ReleaseHolds};
pub use release_orphans::{HoldAges, ReleaseOrphans};
pub use reserve_units::{EventReservation, ReserveUnits, Reserved};
pub use stage_stock::StageStock;
pub use sync_redis::SyncRedis;
pub use view_stock::ViewStock;

use std::time::Duration;

/// How long after its closing Redis keeps the items of an event; later the ledger alone is shown.
const KEPT_AFTER_CLOSING: Duration = Duration::from_secs(24 * 3_600);
