//! The dependencies that the use cases share.

use super::{TRIES_UNTIL_ERROR, recent_outcomes::RecentOutcomes, working_set::Saved};
use crate::store::Claim;
use stampede_db::Database;
use stampede_outbox::Outbox;
use stampede_vocab::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use uuid::Uuid;

/// How long a charge or refund that the provider reports as pending is looked up, from its request on.
const LONGEST_PENDING: Duration = Duration::from_secs(14 * 86_400);

/// The schema, the term of leases, and the notifications that wake the pools. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub(super) db: Database,
    pub(super) outbox: Outbox,
    pub(super) charges_queued: Arc<Notify>,
    pub(super) refunds_queued: Arc<Notify>,
    pub(super) recent_outcomes: RecentOutcomes,
    /// How long after the end of an order its capture is published again.
    pub(super) ended_order_age: Duration,
    lease: Duration,
    resend_for: Duration,
}

impl Context {
    /// `lease` is the term of a claim: longer than two requests to the provider may take. `resend_for` is how long a
    /// charge or a refund may be sent again: less than the provider keeps its key. `ended_order_age` is how long after
    /// the end of an order its capture is published again.
    pub fn new(
        db: Database,
        outbox: Outbox,
        (lease, resend_for): (Duration, Duration),
        ended_order_age: Duration,
    ) -> Self {
        Self {
            db,
            outbox,
            charges_queued: Arc::default(),
            refunds_queued: Arc::default(),
            recent_outcomes: RecentOutcomes::default(),
            ended_order_age,
            lease,
            resend_for,
        }
    }

    /// Wakes the relay and the refund workers, if a transaction has left them work. To be called after its commit.
    pub(super) fn wake(&self, saved: &Saved) {
        if !saved.messages.is_empty() {
            self.outbox.wake();
        }
        if saved.has_refunds {
            self.refunds_queued.notify_one();
        }
    }

    /// Returns whether a request of this age may be sent again: the provider still knows its key if it received it.
    pub(super) fn may_resend(&self, requested_at: Timestamp) -> bool {
        Timestamp::now().since(requested_at) < self.resend_for
    }

    /// Returns whether to give up a request that has had no answer since, after so many tries. Age alone is not enough:
    /// after a long downtime, no process has tried at all.
    pub(super) fn is_given_up(&self, requested_at: Timestamp, checks: u32) -> bool {
        !self.may_resend(requested_at) && checks.saturating_add(1) >= TRIES_UNTIL_ERROR
    }

    /// Returns whether a request has been pending for so long that an operator has to ask the provider.
    pub(super) fn is_pending_for_too_long(&self, requested_at: Timestamp) -> bool {
        !self.may_resend(requested_at) && Timestamp::now().since(requested_at) >= LONGEST_PENDING
    }

    /// Returns the current time, and the end of a lease that begins now.
    pub(super) fn lease(&self) -> (Timestamp, Timestamp) {
        let now = Timestamp::now();
        (now, now.plus(self.lease))
    }

    /// Returns a new claim, whose lease begins now.
    #[expect(clippy::disallowed_methods, reason = "each claim needs a name of its own; nothing depends on which")]
    pub(super) fn claim(&self) -> Claim {
        let (now, until) = self.lease();
        Claim { token: Uuid::now_v7(), now, until }
    }
}
