//! What a round reads: the new partitions, what comes behind the cursor and into the gaps, and which gaps are given up.

use super::Sending;
use crate::{
    desk::Lease,
    flow::Item,
    gaps::joined,
    lease,
    rows::{self, Answer, Ask, COVERED, FILLED, Row},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use std::time::Duration;
use tokio::time::Instant;

/// Rows behind the cursor of one round.
pub(super) const ROUND: u32 = 1_000;
/// Messages of one round that had to wait until now.
pub(super) const AGAIN: usize = 500;
/// With so many messages waiting, no more are read: the memory of this process is not the place for them.
const MOST_WAITING: usize = 100_000;
/// Ranges that are looked into in one statement. All gaps are, each round: with more of them than that, ranges that
/// have them in them.
const PROBED: usize = 200;

/// How much longer than the work time-out an id has to be missing before it may be given up, and only if no transaction
/// holds its row then.
///
/// A server gives an id to a row within the INSERT that writes it, and from the end of that statement to the end of the
/// transaction the row is there and locked: a locking read meets the lock, and the id is not given up however long the
/// transaction takes. What it cannot meet is a row of an INSERT that is still running. One into an outbox waits for no
/// row and no foreign key, and takes milliseconds. One that takes longer than the work time-out is not committed: its
/// process, which has the same time-out, has closed the connection by then. So an id that is missing for longer than
/// that, and that no lock guards, was rolled back or never given, or will be rolled back.
const GIVEN_UP_MARGIN: Duration = Duration::from_secs(2);
/// Time between two checks of what may be given up.
const CHECK: Duration = Duration::from_millis(200);
/// Gaps of one check, at most: a server in steps of three leaves one behind each row.
pub(super) const CHECKED: usize = 10_000;

/// Rows from behind the cursor that are not passed on yet: some of the gaps have not been looked into since they were
/// read.
///
/// It may take several rounds to look into all. What these rows follow was committed before they were read, so each of
/// those rounds sees it; rows that are read later may follow something that has come into a gap since it was looked into.
#[derive(Debug)]
pub(super) struct Held {
    /// The cursor and the partitions that they were read with.
    after: u64,
    own: Vec<u16>,
    next: Vec<Row>,
    /// The gaps have been looked into up to here.
    looked_to: u64,
}

impl Sending {
    /// Returns what there is to be sent, and which of it had waited; `None` if this relay sends no partition.
    pub(super) async fn read(&mut self, conn: &mut MySqlConnection) -> Result<Option<(Answer, Vec<Item>)>, DbError> {
        self.enter(conn).await?;
        let own: Vec<u16> = self.reading.lanes().keys().copied().collect();
        if own.is_empty() {
            return Ok(None);
        }
        self.give_up_gaps(conn).await?;
        let after = self.reading.cursor();
        let held = self.held.take().filter(|held| held.after == after && held.own == own);
        let from = held.as_ref().map_or(0, |held| held.looked_to + 1);
        let gaps = self.reading.gaps.cover(from, after, PROBED);
        let has_more_in_them = self.reading.gaps.count() > PROBED;
        let (gaps, covers) = if has_more_in_them { (Vec::new(), gaps) } else { (gaps, Vec::new()) };
        let limit = if held.is_none() && self.flow.waiting() < MOST_WAITING { ROUND } else { 0 };
        let may_send = self.purging.is_none();
        let drawn = if may_send { self.flow.draw(AGAIN, Instant::now()) } else { Vec::new() };
        let ids: Vec<u64> = drawn.iter().map(|item| item.id).collect();
        let ask = Ask { own: &own, ids: &ids, gaps: &gaps, covers: &covers, after, limit };
        let mut answer = rows::read(conn, &ask).await?;
        answer.next.extend(held.into_iter().flat_map(|held| held.next));
        if let Some(looked_to) = self.fill(conn, &own, &mut answer).await? {
            // Some of it may be behind what is left in the gaps.
            let next = std::mem::take(&mut answer.next);
            self.held = Some(Held { after, own, next, looked_to });
        }
        Ok(Some((answer, drawn)))
    }

    /// Reads the rows that have come into gaps, where only their ids are known. Returns up to where the gaps have been
    /// looked into; `None` if these are all.
    async fn fill(
        &mut self,
        conn: &mut MySqlConnection,
        own: &[u16],
        Answer { filled, covered, .. }: &mut Answer,
    ) -> Result<Option<u64>, DbError> {
        let mut ids = std::mem::take(covered);
        let mut looked_to = if ids.len() >= COVERED as usize { ids.last().copied() } else { None };
        ids.retain(|id| self.reading.gaps.has(*id));
        if ids.len() >= FILLED as usize {
            ids.truncate(FILLED as usize);
            looked_to = ids.last().copied();
        }
        if !ids.is_empty() {
            let ask = Ask { own, ids: &ids, gaps: &[], covers: &[], after: 0, limit: 0 };
            *filled = rows::read(conn, &ask).await?.by_id;
        } else if filled.len() >= FILLED as usize {
            looked_to = filled.last().map(|row| row.id);
        }
        Ok(looked_to)
    }

    /// Begins with the partitions that are new, at their floors.
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
        // By this connection: the server that it is to may have lost what another one had.
        let floors = lease::floors(conn, &self.owner).await?;
        for (partition, epoch) in new {
            let floor = floors.get(&partition).filter(|floor| floor.epoch == epoch);
            // A server that the leases are not kept on has other messages, or has them later. Or they have changed just
            // now.
            let floor = floor.ok_or_else(|| DbError::inconsistent("these are not the leases that this relay keeps"))?;
            self.reading.enter(partition, epoch, floor.id);
        }
        Ok(())
    }

    /// Gives up ids that have been missing for long and that no transaction has written.
    async fn give_up_gaps(&mut self, conn: &mut MySqlConnection) -> Result<(), DbError> {
        let now = Instant::now();
        if now < self.check_at {
            return Ok(());
        }
        self.check_at = now + CHECK;
        let cursor = self.reading.cursor();
        let age = self.db.work_timeout() + GIVEN_UP_MARGIN;
        let mut gaps = self.reading.gaps.take_due(cursor, self.checked, age, now);
        if gaps.is_empty() {
            return Ok(());
        }
        match rows::ids_in(conn, &joined(gaps.clone(), PROBED)).await {
            Ok(there) => {
                // What has come since is read by the next probe.
                gaps.retain(|gap| there.range(gap.first..=gap.last).next().is_none());
                self.reading.gaps.give_up(&gaps);
                self.checked = (self.checked * 2).min(CHECKED);
                tracing::debug!(messaging.topic = %self.topic, outbox.gaps = gaps.len(), "ids without a message are given up");
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
