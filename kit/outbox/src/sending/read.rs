//! The reads of a round: new partitions, rows after the cursor, rows in gaps, and which gaps are given up.

use super::Sending;
use crate::{
    flow::Item,
    gaps::joined,
    lease,
    rows::{self, COVERED, ReadRequest, ReadResult, Row},
    shared::Lease,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use std::time::Duration;
use tokio::time::Instant;

/// With so many messages waiting no more are read, which bounds the memory.
const MAX_WAITING: usize = 100_000;
/// Most ranges in one statement. Each round reads all gaps; with more of them than that, ranges that cover them.
const MAX_RANGES: usize = 200;

/// How much longer than the work time-out an id has to be missing before it may be given up, and only if no transaction
/// holds its row then.
///
/// The server assigns an id within the INSERT, and from the end of that statement to the end of the transaction the row
/// exists and is locked: a locking read meets the lock, and the id is not given up however long the transaction takes.
/// It cannot meet the row of an INSERT that is still running. An INSERT into an outbox waits for no row and no foreign
/// key, and takes milliseconds. One that takes longer than the work time-out is never committed: its process, which has
/// the same time-out, has closed the connection by then. So an id that is missing for longer than that without a lock
/// was rolled back or never assigned, or will be rolled back.
const GIVEN_UP_MARGIN: Duration = Duration::from_secs(2);
/// Time between two checks which gaps can be given up.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Most gaps of one check: a server with `auto_increment_increment` 3 leaves one after each row.
pub(super) const CHECKED: usize = 10_000;

/// Rows after the cursor that are deferred: some gaps have not been read since.
///
/// It may take several rounds to read all gaps. Messages that precede these rows were committed before these rows were
/// read, so each of those rounds sees them. Rows that are read later might follow a message that has appeared in a gap
/// after that gap was read.
#[derive(Debug)]
pub(super) struct Deferred {
    /// The cursor and the partitions at the time of the read.
    after: u64,
    own: Vec<u16>,
    next: Vec<Row>,
    /// The gaps have been read up to here.
    read_to: u64,
}

impl Sending {
    /// Returns the rows that were read, and the waiting messages among them; `None` if this relay holds no partition.
    pub(super) async fn read(
        &mut self,
        conn: &mut MySqlConnection,
    ) -> Result<Option<(ReadResult, Vec<Item>)>, DbError> {
        self.enter(conn).await?;
        let own: Vec<u16> = self.reading.lanes().keys().copied().collect();
        if own.is_empty() {
            return Ok(None);
        }
        self.give_up_gaps(conn).await?;
        let after = self.reading.cursor();
        let deferred = self.deferred.take().filter(|deferred| deferred.after == after && deferred.own == own);
        let from = deferred.as_ref().map_or(0, |deferred| deferred.read_to + 1);
        let gaps = self.reading.gaps.cover(from, after, MAX_RANGES);
        let has_more_in_them = self.reading.gaps.count() > MAX_RANGES;
        let (gaps, covers) = if has_more_in_them { (Vec::new(), gaps) } else { (gaps, Vec::new()) };
        let most_filled = self.page.get();
        let limit = if deferred.is_none() && self.flow.waiting() < MAX_WAITING { most_filled } else { 0 };
        let may_send = self.purging.is_none();
        let ready = if may_send { self.flow.take_ready(self.most_retries(), Instant::now()) } else { Vec::new() };
        let ids: Vec<u64> = ready.iter().map(|item| item.id).collect();
        let request = ReadRequest { own: &own, ids: &ids, gaps: &gaps, most_filled, covers: &covers, after, limit };
        let mut answer = rows::read(conn, &request).await?;
        answer.next.extend(deferred.into_iter().flat_map(|deferred| deferred.next));
        if let Some(read_to) = self.fill(conn, &own, &mut answer).await? {
            // They may follow messages in gaps that are not read yet.
            let next = std::mem::take(&mut answer.next);
            self.deferred = Some(Deferred { after, own, next, read_to });
        }
        Ok(Some((answer, ready)))
    }

    /// Reads the rows in gaps of which only the ids were read. Returns up to where the gaps have been read; `None` if
    /// these are all.
    async fn fill(
        &mut self,
        conn: &mut MySqlConnection,
        own: &[u16],
        ReadResult { filled, covered, .. }: &mut ReadResult,
    ) -> Result<Option<u64>, DbError> {
        let most_filled = self.page.get();
        let mut ids = std::mem::take(covered);
        let mut read_to = if ids.len() >= COVERED as usize { ids.last().copied() } else { None };
        ids.retain(|id| self.reading.gaps.has(*id));
        if ids.len() >= most_filled {
            ids.truncate(most_filled);
            read_to = ids.last().copied();
        }
        if !ids.is_empty() {
            let request = ReadRequest { own, ids: &ids, gaps: &[], most_filled, covers: &[], after: 0, limit: 0 };
            *filled = rows::read(conn, &request).await?.by_id;
        } else if filled.len() >= most_filled {
            read_to = filled.last().map(|row| row.id);
        }
        Ok(read_to)
    }

    /// Adds newly leased partitions, at their floors.
    async fn enter(&mut self, conn: &mut MySqlConnection) -> Result<(), DbError> {
        let is_new =
            |partition: &u16, lease: &Lease| !lease.is_leaving && !self.reading.lanes().contains_key(partition);
        let leases = self.seen.leases.iter();
        let new: Vec<(u16, u64)> = leases
            .filter(|(partition, lease)| is_new(partition, lease))
            .map(|(partition, lease)| (*partition, lease.epoch))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        // By this connection: its server may have lost commits that another one has.
        let floors = lease::floors(conn, &self.owner).await?;
        for (partition, epoch) in new {
            let floor = floors.get(&partition).filter(|floor| floor.epoch == epoch);
            // This is not the server that the leases are on, so its messages may differ. Or the lease has just changed.
            let floor = floor.ok_or_else(|| DbError::inconsistent("these are not the leases that this relay keeps"))?;
            self.reading.enter(partition, epoch, floor.id);
        }
        Ok(())
    }

    /// Gives up ids that have been missing for long and have no row, locked or not.
    async fn give_up_gaps(&mut self, conn: &mut MySqlConnection) -> Result<(), DbError> {
        let now = Instant::now();
        if now < self.check_at {
            return Ok(());
        }
        self.check_at = now + CHECK_INTERVAL;
        let cursor = self.reading.cursor();
        let age = self.db.work_timeout() + GIVEN_UP_MARGIN;
        let mut gaps = self.reading.gaps.take_due(cursor, self.checked, age, now);
        if gaps.is_empty() {
            return Ok(());
        }
        match rows::ids_in(conn, &joined(gaps.clone(), MAX_RANGES)).await {
            Ok(there) => {
                // Rows that have appeared are read by the next round.
                gaps.retain(|gap| there.range(gap.first..=gap.last).next().is_none());
                self.reading.gaps.give_up(&gaps);
                self.checked = (self.checked * 2).min(CHECKED);
                tracing::debug!(messaging.topic = %self.topic, gap.count = gaps.len(), "ids without a message are given up");
                Ok(())
            }
            Err(error) if error.is_locked() => {
                self.checked = (self.checked / 2).max(1);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
