//! Reconciles the events outside of their window, which do not change by themselves: those that were staged, moved or
//! cancelled without a copy to Redis; those that were found not to be ready; and all of them once, after Redis was lost
//! or restarted.
//!
//! One replica at a time makes the pass over all of them, by a claim in Redis (see `lua/stock/claim.lua`). The cursor
//! is stored with the claim, so the pass resumes in the next round or on another replica, and is lost with all other
//! data of Redis.

use super::{
    COMPARED_AFTER_CLOSING, Error, Reconcile,
    active_events::BEFORE_OPENING,
    copy_buyers::owner,
    reconcile::{EVENTS_PER_PAGE, MAX_CONCURRENT_EVENTS, Watermark},
};
use crate::{domain::Item, store};
use futures_util::{StreamExt, stream};
use stampede_db::DbError;
use stampede_lua::stock::{Claim, Progress, Work};
use stampede_vocab::{EventId, Timestamp};
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Lease of the claim on the pass: more than the longest page takes.
const CLAIM_TERM: Duration = Duration::from_secs(15);
/// Time of one round for the pass.
const PASS_TIMEOUT: Duration = Duration::from_secs(8);
/// The cursor at the start of a pass.
const START: &str = "begin";
/// Most events that one round restages.
const RESTAGE_LIMIT: u32 = 1_000;
/// Time-out for restaging them, so that the rest of the round is not starved.
const RESTAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time of one round for the events that were found not to be ready.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Items that one statement marks as over.
const MARK_LIMIT: u32 = 1_000;

/// Reconciles the events outside of their window.
pub struct CompareAll {
    reconcile: Reconcile,
    owner: String,
    /// The pending restages that the previous round found.
    pending: Mutex<HashSet<EventId>>,
}

impl CompareAll {
    /// Returns the use case, which repairs by `reconcile`.
    pub fn new(reconcile: Reconcile) -> Self {
        Self { reconcile, owner: owner(), pending: Mutex::default() }
    }

    /// Makes one round. When idle it costs two empty queries and one script call.
    pub async fn run(&self) -> Result<(), Error> {
        if let Err(error) = self.mark_over().await {
            // It only saves rounds from reading them.
            tracing::warn!(error.cause = %error, "items were not marked as over, trying again");
        }
        self.restage().await?;
        self.run_rechecks().await?;
        self.pass().await
    }

    /// Marks items as over, so that no round reads them any more.
    async fn mark_over(&self) -> Result<(), DbError> {
        let now = Timestamp::now();
        let (soon, closed_at) = (now.plus(BEFORE_OPENING), now.minus(COMPARED_AFTER_CLOSING));
        let marked: usize = self
            .reconcile
            .db
            .run("mark_over", |mut conn| async move {
                store::stock::mark_over(&mut conn, soon, closed_at, MARK_LIMIT).await
            })
            .await?;
        if marked > 0 {
            tracing::debug!(item.count = marked, "items are over");
        }
        Ok(())
    }

    /// Stages the events whose change was not copied to Redis. One that was not pending in the previous round is most
    /// likely being staged by its writer.
    async fn restage(&self) -> Result<(), DbError> {
        let pending = self.reconcile.db.run("waiting_restages", |mut conn| async move {
            store::restages::pending(&mut conn, RESTAGE_LIMIT).await
        });
        let pending: HashSet<EventId> = pending.await?.into_iter().collect();
        let before =
            std::mem::replace(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner), pending.clone());
        let events: Vec<EventId> = pending.intersection(&before).copied().collect();
        let restaged = stream::iter(events).for_each_concurrent(MAX_CONCURRENT_EVENTS, |event| self.restage_one(event));
        if timeout(RESTAGE_TIMEOUT, restaged).await.is_err() {
            tracing::warn!("not all events were staged in time, trying the rest again");
        }
        Ok(())
    }

    async fn restage_one(&self, event: EventId) {
        if let Err(error) = self.reconcile.restage(event).await {
            tracing::warn!(event.id = %event, error.cause = %error, "event was not staged, trying again");
        }
    }

    async fn run_rechecks(&self) -> Result<(), DbError> {
        let started = Instant::now();
        let mut batch = self.reconcile.rechecks.take();
        while started.elapsed() < RECHECK_TIMEOUT {
            let page = batch.page(EVENTS_PER_PAGE);
            if page.is_empty() {
                break;
            }
            self.check_page(&page).await?;
            batch.done(&page);
        }
        Ok(())
    }

    /// Compares the events of a page. Those that could not be repaired are queued for the next round.
    async fn check_page(&self, events: &[EventId]) -> Result<(), DbError> {
        let items = self.reconcile.items_of_each(events).await?;
        stream::iter(items).for_each_concurrent(MAX_CONCURRENT_EVENTS, |items| self.check(items)).await;
        Ok(())
    }

    async fn check(&self, items: Vec<Item>) {
        let Some(event) = items.first().map(|item| item.event_id) else { return };
        if items.iter().all(Item::is_new) && self.is_pending(event) {
            // Its writer is staging it; if not, `restage` does so in a round or two.
            return self.reconcile.request_recheck(event);
        }
        if !self.reconcile.compare_and_repair(items, &Watermark::none()).await {
            self.reconcile.request_recheck(event);
        }
    }

    fn is_pending(&self, event: EventId) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).contains(&event)
    }

    /// Continues the pass over all events, unless another replica has the claim. Restarts a finished pass if the
    /// recheck queue has overflowed. A pass under way may have passed those events, so it is restarted once it is
    /// finished.
    async fn pass(&self) -> Result<(), Error> {
        let redis = &self.reconcile.redis;
        let mut cursor = match redis.claim(Work::Pass, &self.owner, CLAIM_TERM, START).await? {
            Claim::Taken(cursor) => cursor,
            Claim::Done if self.reconcile.rechecks.has_overflowed() => return self.restart_pass().await,
            Claim::Done | Claim::Busy | Claim::Changed => return Ok(()),
        };
        let started = Instant::now();
        while started.elapsed() < PASS_TIMEOUT {
            let events = self.page_after(&cursor).await?;
            self.check_page(&events).await?;
            let next = events.last().filter(|_| events.len() == EVENTS_PER_PAGE).map(EventId::to_string);
            let progress = next.as_deref().map_or(Progress::Done(None), Progress::To);
            if !redis.advance(Work::Pass, &self.owner, CLAIM_TERM, &cursor, progress).await? {
                return Ok(());
            }
            let Some(next) = next else {
                tracing::info!("all events were compared with the ledger");
                return Ok(());
            };
            cursor = next;
        }
        Ok(())
    }

    async fn restart_pass(&self) -> Result<(), Error> {
        self.reconcile.redis.restart(Work::Pass).await?;
        self.reconcile.rechecks.reset_overflow();
        tracing::warn!("more events were not ready than are remembered, comparing all with the ledger");
        Ok(())
    }

    async fn page_after(&self, cursor: &str) -> Result<Vec<EventId>, DbError> {
        let after: Option<EventId> = cursor.parse().ok();
        let closing_after = Timestamp::now().minus(COMPARED_AFTER_CLOSING);
        self.reconcile
            .db
            .run("page_of_events", |mut conn| async move {
                store::stock::page_of_events(&mut conn, closing_after, after, EVENTS_PER_PAGE).await
            })
            .await
    }
}
