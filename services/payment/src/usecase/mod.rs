//! The use cases, one file each. A use case opens the transaction, calls the domain for decisions and the store for
//! SQL; it knows neither SQL nor the contracts. No request to the provider is made inside a transaction.

mod carry_out_decisions;
mod charge_attempts;
mod context;
mod error;
mod find_payments;
mod follow_orders;
mod handle_webhook;
mod look_up_notices;
mod note_refunds;
mod permits;
mod queue_scans;
mod recent_outcomes;
mod reconcile_attempts;
mod refund_payments;
mod republish_captures;
mod settle_attempts;
mod settle_refunds;
mod working_set;

pub use carry_out_decisions::CarryOutDecisions;
pub use charge_attempts::ChargeAttempts;
pub use context::Context;
pub use error::Error;
pub use find_payments::FindPayments;
pub use follow_orders::{FollowError, FollowOrders, Followed};
pub use handle_webhook::HandleWebhook;
pub use look_up_notices::LookUpNotices;
pub use note_refunds::NoteRefunds;
pub use permits::Permits;
pub use reconcile_attempts::ReconcileAttempts;
pub use refund_payments::RefundPayments;
pub use republish_captures::RepublishCaptures;
pub use settle_attempts::SettleAttempts;
pub use settle_refunds::SettleRefunds;

use stampede_batch::BatchConfig;
use stampede_db::DbError;

/// Tries after which each further one without a result is logged as an error. Retries go on until the provider may have
/// forgotten the key.
const TRIES_UNTIL_ERROR: u32 = 10;

/// Most calls of one batch.
const MAX_BATCH: usize = 256;

/// Two batches in flight, so that one that hangs does not block all others, and the permits of charges that wait for
/// their settlement. One at a time was tried, and was no faster in a rush. A batch runs even if its callers have gone
/// away.
const fn batches(name: &'static str) -> BatchConfig {
    BatchConfig { name, max_batch: MAX_BATCH, max_in_flight: 2, max_queued: 4_096, must_run: true }
}

/// Returns the rows of a claim that can be read, and logs the others. Those are leased too, so that they do not stay at
/// the head of the queue, and are claimed again when the lease expires.
fn readable<T>(claimed: Vec<Result<T, DbError>>) -> Vec<T> {
    let mut rows = Vec::with_capacity(claimed.len());
    for row in claimed {
        match row {
            Ok(row) => rows.push(row),
            Err(error) => tracing::error!(error.cause = %error, "a row that is due cannot be read and waits"),
        }
    }
    rows
}
