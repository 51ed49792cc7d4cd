//! What the service does, one file per verb. Transactions begin and end here; SQL and contracts are elsewhere, and the
//! provider is never asked inside a transaction.

mod charge_attempts;
mod follow_orders;
mod handle_webhook;
mod hands;
mod read_payments;
mod recent_ends;
mod reconcile_attempts;
mod refund_payments;
mod settle_attempts;
mod settle_refunds;

pub use follow_orders::{FollowError, Followed, TakenOver};
pub use hands::Hands;
pub use read_payments::{Page, Viewer};

use crate::{
    domain::{AttemptKey, Failure, Outcome, RefundKey, RefundOutcome},
    provider::HttpProvider,
};
use recent_ends::RecentEnds;
use settle_attempts::Settlement;
use settle_refunds::RefundSettlement;
use stampede_batch::{BatchConfig, BatchError, Batcher};
use stampede_db::{Database, DbError};
use stampede_outbox::Outbox;
use stampede_vocab::SharedClock;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// So many tries without a result are told as an error, each time. They go on all the same.
const WORRYING_TRIES: u32 = 10;

/// All that the verbs work with. Cheap to clone.
#[derive(Clone)]
pub struct Payments {
    desk: Desk,
    provider: HttpProvider,
    charging: Hands,
    settlements: Batcher<Settlement, Result<(), Failure>>,
    refund_settlements: Batcher<RefundSettlement, Result<(), Failure>>,
    webhook_secret: Arc<str>,
    lease: Duration,
}

/// What the verbs work with that only touch the database.
#[derive(Clone)]
struct Desk {
    db: Database,
    outbox: Outbox,
    clock: SharedClock,
    charges_wanted: Arc<Notify>,
    refunds_wanted: Arc<Notify>,
    recent_ends: RecentEnds,
}

impl Payments {
    /// Needs a runtime, since answers of the provider are written in batches from now on. `charging` are the hands of
    /// the pool that charges. What is claimed is taken for abandoned after `lease`, which must be longer than the
    /// provider may take for two requests.
    pub fn new(
        db: Database,
        outbox: Outbox,
        clock: SharedClock,
        provider: HttpProvider,
        charging: Hands,
        webhook_secret: &str,
        lease: Duration,
    ) -> Self {
        let (charges_wanted, refunds_wanted) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let recent_ends = RecentEnds::default();
        let desk = Desk { db, outbox, clock, charges_wanted, refunds_wanted, recent_ends };
        let (of_charges, of_refunds) = (desk.clone(), desk.clone());
        Self {
            settlements: Batcher::new(batches("settle_attempts"), move |batch| {
                settle_attempts::settle_attempts(of_charges.clone(), batch)
            }),
            refund_settlements: Batcher::new(batches("settle_refunds"), move |batch| {
                settle_refunds::settle_refunds(of_refunds.clone(), batch)
            }),
            desk,
            provider,
            charging,
            webhook_secret: webhook_secret.into(),
            lease,
        }
    }

    /// Waits until this replica has queued an attempt that it did not take over.
    pub async fn charges_wanted(&self) {
        self.desk.charges_wanted.notified().await;
    }

    /// Waits until this replica has queued a refund.
    pub async fn refunds_wanted(&self) {
        self.desk.refunds_wanted.notified().await;
    }

    async fn settle(&self, key: AttemptKey, outcome: Outcome) -> Result<(), Failure> {
        self.settlements.call(Settlement { key, outcome }).await?
    }

    async fn settle_refund(&self, key: RefundKey, outcome: RefundOutcome) -> Result<(), Failure> {
        self.refund_settlements.call(RefundSettlement { key, outcome }).await?
    }
}

/// Two batches under way: one that hangs does not hold up all others, and with them the hands of the charges that wait
/// for their settlement. One at a time was tried, and was no faster in a rush.
fn batches(name: &'static str) -> BatchConfig {
    BatchConfig { name, max_batch: 256, max_in_flight: 2, max_queued: 4_096 }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let text = error.to_string().into();
        if error.is_unreachable() { Self::Unreachable(text) } else { Self::Broken(text) }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded => Self::Overloaded,
            BatchError::Closed => Self::Broken(error.to_string().into()),
        }
    }
}
