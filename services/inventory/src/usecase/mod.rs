//! The use cases, one file each. A use case opens the transaction, calls the domain for decisions and the store for
//! SQL; it knows neither SQL nor the contracts.

mod absent_events;
mod active_events;
mod apply_messages;
mod check_staging;
mod commit_grants;
mod compare_all;
mod copy_buyers;
mod distrusts;
mod drop_stale_holds;
mod error;
mod ledger;
mod recheck_queue;
mod reconcile;
mod release_ended;
mod release_reservations;
mod release_unwritten;
mod reserve_units;
mod script_permits;
mod stage_stock;
mod staging_watch;
mod sync_redis;
mod unreadable;
mod view_stock;

pub use apply_messages::{ApplyMessages, Batch, Effects, LedgerRequest};
pub use check_staging::CheckStaging;
pub use compare_all::CompareAll;
pub use drop_stale_holds::DropStaleHolds;
pub use error::Error;
pub use reconcile::Reconcile;
pub use release_ended::ReleaseEnded;
pub use release_reservations::ReleaseReservations;
pub use release_unwritten::ReleaseUnwritten;
pub use reserve_units::{EventReservation, ReserveUnits, Reserved};
pub use stage_stock::StageStock;
pub use sync_redis::SyncRedis;
pub use view_stock::ViewStock;

use std::time::Duration;

/// How long after its closing an event is still compared. By then each of its orders has ended.
const COMPARED_AFTER_CLOSING: Duration = Duration::from_secs(3_600);
/// Number of events with a queue of their own from which on unused queues are dropped. Each event that sells has one,
/// so that one with locked rows does not delay the others, and no copy overtakes an earlier one.
const MANY_EVENT_QUEUES: usize = 256;
