//! Copies the buyers of an item to Redis in pages: all of them, or those whose units have changed since a version.
//!
//! One worker at a time copies an item, by a claim with a lease of a few seconds. The claim is stored in Redis with the
//! item, and so is the cursor, from which the next round or another replica resumes. If Redis loses the item it loses
//! the claim too, and the copy starts again.

use super::{Error, SyncRedis, sync_redis::ledger_units};
use crate::{
    domain::{CopyCursor, Item, Position, Restore},
    store,
};
use futures_util::future::join;
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_lua::stock::{Claim, LedgerCopy, Progress, Stock, Work};
use stampede_vocab::{ItemId, UserId};
use std::{collections::BTreeSet, time::Duration};

/// Buyers copied by one call: it blocks Redis for about two milliseconds.
const BATCH_SIZE: u32 = 1_000;
/// Lease of a claim, renewed with each page. A page takes some milliseconds.
const TERM: Duration = Duration::from_secs(5);

/// The outcome of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repaired {
    Complete,
    /// Another worker is on it, or the event or the item has changed since: it has to be compared again.
    Pending,
}

struct Page {
    buyers: Vec<(UserId, i32)>,
    /// Position of the next page; `None` after the last.
    next: Option<Position>,
}

/// The claim on the copy of an item.
struct Claimed<'i> {
    item: &'i Item,
    work: Work,
    owner: String,
}

impl Claimed<'_> {
    fn page(&self, buyers: Vec<(UserId, i32)>) -> LedgerCopy {
        let ledger = ledger_units(self.item.committed);
        // A page covers no change: only the complete copy does, which the end of the work reports.
        let first_version = ledger.version + 1;
        LedgerCopy { item_id: self.item.id(), ledger, first_version, buyers, all_buyers: false }
    }
}

/// Copies buyers. Cheap to clone.
#[derive(Clone)]
pub(super) struct CopyBuyers {
    db: Database,
    redis: Stock,
    sync: SyncRedis,
}

impl CopyBuyers {
    pub(super) fn new(db: Database, redis: Stock, sync: SyncRedis) -> Self {
        Self { db, redis, sync }
    }

    /// Copies the buyers that have to be restored of an item. The item was read before, so the buyers are at least as
    /// new. Resumes at the cursor of an earlier copy.
    pub(super) async fn run(&self, item: &Item, restore: Restore) -> Result<Repaired, Error> {
        // What is wholly unreliable may have the version all the same.
        let until = (restore.from > 0).then_some(item.committed.version);
        let work = Work::Copy { event_id: item.event_id, item_id: item.id(), is_staged: restore.is_staged, until };
        let claimed = Claimed { item, work, owner: owner() };
        let start = CopyCursor { from: restore.from, to: item.committed.version, after: None };
        let cursor = match self.redis.claim(work, &claimed.owner, TERM, &start.encode()).await? {
            Claim::Taken(cursor) => cursor,
            Claim::Done => return Ok(Repaired::Complete),
            Claim::Busy | Claim::Changed => return Ok(Repaired::Pending),
        };
        match self.resume(&claimed, &cursor, start).await {
            Ok(true) => Ok(Repaired::Complete),
            Ok(false) => Ok(Repaired::Pending),
            Err(error) => {
                self.release_claim(&claimed).await;
                Err(error)
            }
        }
    }

    /// Copies page by page. Returns false if the claim was lost.
    async fn resume(&self, claimed: &Claimed<'_>, cursor: &str, start: CopyCursor) -> Result<bool, Error> {
        let stored = CopyCursor::parse(cursor);
        // The cursor is that of another release: start again.
        if stored.is_none() && !self.advance(claimed, cursor, Progress::To(&start.encode())).await? {
            return Ok(false);
        }
        let mut copy = stored.unwrap_or(start);
        let mut page = self.read(claimed.item.id(), copy).await?;
        while let Some(next) = page.next {
            let next_cursor = CopyCursor { after: Some(next), ..copy };
            // Reads the next page while this one is copied.
            let (moved, read) = join(
                self.copy_page(claimed, page.buyers, copy, next_cursor),
                self.read(claimed.item.id(), next_cursor),
            )
            .await;
            if !moved? {
                return Ok(false);
            }
            (copy, page) = (next_cursor, read?);
        }
        self.sync.copy(claimed.item.event_id, claimed.page(page.buyers)).await?;
        self.advance(claimed, &copy.encode(), Progress::Done(Some((copy.from, copy.to)))).await
    }

    async fn copy_page(
        &self,
        claimed: &Claimed<'_>,
        buyers: Vec<(UserId, i32)>,
        copy: CopyCursor,
        next_cursor: CopyCursor,
    ) -> Result<bool, Error> {
        self.sync.copy(claimed.item.event_id, claimed.page(buyers)).await?;
        self.advance(claimed, &copy.encode(), Progress::To(&next_cursor.encode())).await
    }

    async fn advance(&self, claimed: &Claimed<'_>, from: &str, progress: Progress<'_>) -> Result<bool, Error> {
        Ok(self.redis.advance(claimed.work, &claimed.owner, TERM, from, progress).await?)
    }

    /// Releases the claim, so that another worker can resume at once. If that fails the claim expires.
    async fn release_claim(&self, claimed: &Claimed<'_>) {
        if let Err(error) = self.redis.give_up(claimed.work, &claimed.owner).await {
            tracing::debug!(item.id = %claimed.item.id(), error.cause = %error, "a claim could not be given up");
        }
    }

    async fn read(&self, item: ItemId, copy: CopyCursor) -> Result<Page, Error> {
        let page = self.db.run("buyers_of_item", |mut conn| async move {
            if copy.from == 0 { all_buyers(&mut conn, item, copy).await } else { changed(&mut conn, item, copy).await }
        });
        Ok(page.await?)
    }
}

async fn all_buyers(conn: &mut MySqlConnection, item: ItemId, copy: CopyCursor) -> Result<Page, DbError> {
    let after = copy.after.map(|(_, user)| user);
    let buyers = store::ledger::buyers_of(conn, item, after, BATCH_SIZE).await?;
    let is_last = buyers.len() < BATCH_SIZE as usize;
    let next = buyers.last().filter(|_| !is_last).map(|(user, _)| (0, *user));
    Ok(Page { buyers, next })
}

async fn changed(conn: &mut MySqlConnection, item: ItemId, copy: CopyCursor) -> Result<Page, DbError> {
    let changes = store::ledger::changes_of(conn, item, (copy.from, copy.to), copy.after, BATCH_SIZE).await?;
    let is_last = changes.len() < BATCH_SIZE as usize;
    let next = changes.last().copied().filter(|_| !is_last);
    let pairs: BTreeSet<(ItemId, UserId)> = changes.into_iter().map(|(_, user)| (item, user)).collect();
    let units = store::ledger::units_of(conn, &pairs).await?;
    let buyers = pairs.into_iter().map(|pair| (pair.1, units.get(&pair).copied().unwrap_or(0))).collect();
    Ok(Page { buyers, next })
}

/// Returns a unique name for a worker.
#[expect(clippy::disallowed_methods, reason = "each worker needs a name of its own; nothing depends on which")]
pub(super) fn owner() -> String {
    uuid::Uuid::now_v7().to_string()
}
