//! Copies the buyers of an item to Redis, page by page: all of them, or those whose units have changed since a version.
//!
//! One worker copies an item at a time, by a claim that lies in Redis with what was copied, and ends by itself a few
//! seconds after its holder is gone. Beside it is how far the copy is, so whoever takes it goes on from there: another
//! round, another replica. What Redis loses of the item it loses with the claim, and the copy begins anew.

use super::{Error, SyncRedis, sync_redis::ledger_units};
use crate::{
    domain::{CopyWork, Item, Position, Restore},
    store,
};
use futures_util::future::join;
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_lua::stock::{Claim, LedgerCopy, Progress, Stock, Work};
use stampede_vocab::{ItemId, UserId};
use std::{collections::BTreeSet, time::Duration};

/// Buyers that are copied in one call: about two milliseconds in which Redis does nothing else.
const BATCH_SIZE: u32 = 1_000;
/// How long a claim lasts that is not moved on. A page takes some milliseconds.
const TERM: Duration = Duration::from_secs(5);

/// The outcome of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repaired {
    /// It is done.
    Complete,
    /// Another worker is on it, or what was seen has changed: it is to be looked at again.
    Pending,
}

/// One page of buyers.
struct Page {
    buyers: Vec<(UserId, i32)>,
    /// Where the next one begins; none after the last.
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
        // A page covers no change; only all of them do, which the end of the work says.
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

    /// Copies what is to be restored of an item, which was read before, so that its buyers are at least as new. Goes on
    /// where another has left off.
    pub(super) async fn run(&self, item: &Item, restore: Restore) -> Result<Repaired, Error> {
        let work = Work::Copy { event_id: item.event_id, item_id: item.id(), is_staged: restore.is_staged };
        let claimed = Claimed { item, work, owner: owner() };
        let begin = CopyWork { from: restore.from, to: item.committed.version, after: None };
        let cursor = match self.redis.claim(work, &claimed.owner, TERM, &begin.cursor()).await? {
            Claim::Taken(cursor) => cursor,
            Claim::Done => return Ok(Repaired::Complete),
            Claim::Busy | Claim::Changed => return Ok(Repaired::Pending),
        };
        match self.go_on(&claimed, &cursor, begin).await {
            Ok(true) => Ok(Repaired::Complete),
            Ok(false) => Ok(Repaired::Pending),
            Err(error) => {
                self.give_up(&claimed).await;
                Err(error)
            }
        }
    }

    /// False if the claim was lost.
    async fn go_on(&self, claimed: &Claimed<'_>, cursor: &str, begin: CopyWork) -> Result<bool, Error> {
        let left = CopyWork::parse(cursor);
        // Otherwise another release has left it.
        if left.is_none() && !self.advance(claimed, cursor, Progress::To(&begin.cursor())).await? {
            return Ok(false);
        }
        let mut copy = left.unwrap_or(begin);
        let mut page = self.read(claimed.item.id(), copy).await?;
        while let Some(next) = page.next {
            let further = CopyWork { after: Some(next), ..copy };
            // The next page is read while this one is copied.
            let (moved, read) =
                join(self.copy_page(claimed, page.buyers, copy, further), self.read(claimed.item.id(), further)).await;
            if !moved? {
                return Ok(false);
            }
            (copy, page) = (further, read?);
        }
        self.sync.copy(claimed.item.event_id, claimed.page(page.buyers)).await?;
        self.advance(claimed, &copy.cursor(), Progress::Done(Some((copy.from, copy.to)))).await
    }

    async fn copy_page(
        &self,
        claimed: &Claimed<'_>,
        buyers: Vec<(UserId, i32)>,
        copy: CopyWork,
        further: CopyWork,
    ) -> Result<bool, Error> {
        self.sync.copy(claimed.item.event_id, claimed.page(buyers)).await?;
        self.advance(claimed, &copy.cursor(), Progress::To(&further.cursor())).await
    }

    async fn advance(&self, claimed: &Claimed<'_>, from: &str, progress: Progress<'_>) -> Result<bool, Error> {
        Ok(self.redis.advance(claimed.work, &claimed.owner, TERM, from, progress).await?)
    }

    /// Lets another go on at once. Where that fails the claim ends by itself.
    async fn give_up(&self, claimed: &Claimed<'_>) {
        if let Err(error) = self.redis.give_up(claimed.work, &claimed.owner).await {
            tracing::debug!(item.id = %claimed.item.id(), error.cause = %error, "a claim could not be given up");
        }
    }

    async fn read(&self, item: ItemId, copy: CopyWork) -> Result<Page, Error> {
        let page = self.db.run("buyers_of_item", |mut conn| async move {
            if copy.from == 0 { all_buyers(&mut conn, item, copy).await } else { changed(&mut conn, item, copy).await }
        });
        Ok(page.await?)
    }
}

async fn all_buyers(conn: &mut MySqlConnection, item: ItemId, copy: CopyWork) -> Result<Page, DbError> {
    let after = copy.after.map(|(_, user)| user);
    let buyers = store::ledger::buyers_of(conn, item, after, BATCH_SIZE).await?;
    let is_last = buyers.len() < BATCH_SIZE as usize;
    let next = buyers.last().filter(|_| !is_last).map(|(user, _)| (0, *user));
    Ok(Page { buyers, next })
}

async fn changed(conn: &mut MySqlConnection, item: ItemId, copy: CopyWork) -> Result<Page, DbError> {
    let changes = store::ledger::changes_of(conn, item, (copy.from, copy.to), copy.after, BATCH_SIZE).await?;
    let is_last = changes.len() < BATCH_SIZE as usize;
    let next = changes.last().copied().filter(|_| !is_last);
    let pairs: BTreeSet<(ItemId, UserId)> = changes.into_iter().map(|(_, user)| (item, user)).collect();
    let units = store::ledger::units_of(conn, &pairs).await?;
    let buyers = pairs.into_iter().map(|pair| (pair.1, units.get(&pair).copied().unwrap_or(0))).collect();
    Ok(Page { buyers, next })
}

/// A name that no other worker has.
#[expect(clippy::disallowed_methods, reason = "each worker needs a name of its own; nothing depends on which")]
pub(super) fn owner() -> String {
    uuid::Uuid::now_v7().to_string()
}
