//! Looks after the events that are far from their window, of which nothing changes by itself: those that were staged,
//! moved or cancelled and of which Redis was not told; those that somebody found not to be ready; and each of them
//! once, after Redis was lost or has started anew.
//!
//! One replica at a time makes the pass over all of them, by a claim in Redis (see `lua/stock/claim.lua`). How far it
//! is stands beside the claim, so it goes on from there in the next round or on another replica, and is lost with all
//! else.

use super::{
    COMPARED_AFTER_CLOSING, Error, Reconcile,
    copy_buyers::owner,
    near_events::BEFORE_OPENING,
    reconcile::{EVENTS_PER_PAGE, MAX_CONCURRENT_EVENTS, Settled},
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

/// How long the pass is another replica's to go on with: more than the longest page takes.
const TERM: Duration = Duration::from_secs(15);
/// How long one round goes on with the pass.
const ROUND: Duration = Duration::from_secs(8);
/// The cursor of a pass that has not come to an event yet.
const BEGIN: &str = "begin";
/// Events that one round stages of those of which Redis was not told.
const RESTAGED_AT_A_TIME: u32 = 1_000;
/// How long one round stages them, so that what comes behind has its turn.
const RESTAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one round goes on with those that somebody found not to be ready.
const ASKED_TIMEOUT: Duration = Duration::from_secs(5);
/// Items that one statement marks as over.
const MARKED_AT_A_TIME: u32 = 1_000;

/// Looks after the events that are far from their window.
pub struct CompareAll {
    reconcile: Reconcile,
    owner: String,
    /// The events of which Redis was not told when the round before looked.
    waiting: Mutex<HashSet<EventId>>,
}

impl CompareAll {
    /// Repairs events by `reconcile`.
    pub fn new(reconcile: Reconcile) -> Self {
        Self { reconcile, owner: owner(), waiting: Mutex::default() }
    }

    /// Makes one round. If nothing has happened it costs two statements that find nothing, and one script.
    pub async fn run(&self) -> Result<(), Error> {
        self.mark_over().await?;
        self.restage().await?;
        self.look_at_asked().await?;
        self.pass().await
    }

    /// Marks what is over, so that no round reads it any more.
    async fn mark_over(&self) -> Result<(), DbError> {
        let now = Timestamp::now();
        let (soon, closed_at) = (now.plus(BEFORE_OPENING), now.minus(COMPARED_AFTER_CLOSING));
        let marked: usize = self
            .reconcile
            .db
            .run("mark_over", |mut conn| async move {
                store::stock::mark_over(&mut conn, soon, closed_at, MARKED_AT_A_TIME).await
            })
            .await?;
        if marked > 0 {
            tracing::debug!(item.count = marked, "items are over");
        }
        Ok(())
    }

    /// Stages the events of whose change Redis was not told. One that was not waiting in the round before is most
    /// likely being told.
    async fn restage(&self) -> Result<(), DbError> {
        let waiting = self.reconcile.db.run("waiting_restages", |mut conn| async move {
            store::restages::waiting(&mut conn, RESTAGED_AT_A_TIME).await
        });
        let waiting: HashSet<EventId> = waiting.await?.into_iter().collect();
        let before =
            std::mem::replace(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), waiting.clone());
        let events: Vec<EventId> = waiting.intersection(&before).copied().collect();
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

    async fn look_at_asked(&self) -> Result<(), DbError> {
        let started = Instant::now();
        let mut taken = self.reconcile.asked.take();
        while started.elapsed() < ASKED_TIMEOUT {
            let page = taken.page(EVENTS_PER_PAGE);
            if page.is_empty() {
                break;
            }
            self.look_at_page(&page).await?;
            taken.looked_at(&page);
        }
        Ok(())
    }

    /// What is not right after it is looked at again in the next round.
    async fn look_at_page(&self, events: &[EventId]) -> Result<(), DbError> {
        let items = self.reconcile.items_of_each(events).await?;
        stream::iter(items).for_each_concurrent(MAX_CONCURRENT_EVENTS, |items| self.look_at(items)).await;
        Ok(())
    }

    async fn look_at(&self, items: Vec<Item>) {
        let Some(event) = items.first().map(|item| item.event_id) else { return };
        if items.iter().all(Item::is_new) && self.is_waiting(event) {
            // Whoever has written it is staging it; if not, `restage` does so in a round or two.
            return self.reconcile.ask(event);
        }
        if !self.reconcile.look_at(items, &Settled::none()).await {
            self.reconcile.ask(event);
        }
    }

    fn is_waiting(&self, event: EventId) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).contains(&event)
    }

    /// Goes on with the pass over all events, unless it is another replica's. One that is done begins anew if more
    /// events were found not to be ready than are remembered: one that is under way may have passed them.
    async fn pass(&self) -> Result<(), Error> {
        let redis = &self.reconcile.redis;
        let mut cursor = match redis.claim(Work::Pass, &self.owner, TERM, BEGIN).await? {
            Claim::Taken(cursor) => cursor,
            Claim::Done if self.reconcile.asked.is_short() => return self.begin_anew().await,
            Claim::Done | Claim::Busy | Claim::Changed => return Ok(()),
        };
        let started = Instant::now();
        while started.elapsed() < ROUND {
            let events = self.page_behind(&cursor).await?;
            self.look_at_page(&events).await?;
            let next = events.last().filter(|_| events.len() == EVENTS_PER_PAGE).map(EventId::to_string);
            let progress = next.as_deref().map_or(Progress::Done(None), Progress::To);
            if !redis.advance(Work::Pass, &self.owner, TERM, &cursor, progress).await? {
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

    async fn begin_anew(&self) -> Result<(), Error> {
        self.reconcile.redis.restart(Work::Pass).await?;
        self.reconcile.asked.all_begun();
        tracing::warn!("more events were not ready than are remembered, comparing all with the ledger");
        Ok(())
    }

    async fn page_behind(&self, cursor: &str) -> Result<Vec<EventId>, DbError> {
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
