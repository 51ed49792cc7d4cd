//! Paged work that one worker does at a time: copying the buyers of an item, and the pass over all events. The claim
//! and the progress lie in Redis beside the result.

use super::Stock;
use crate::{Args, RedisError, Script};
use stampede_vocab::{EventId, ItemId};
use std::time::Duration;

static CLAIM: Script = Script::new(
    "stock/claim",
    concat!(
        include_str!("../../run_id.lua"),
        include_str!("../../stock/prelude.lua"),
        include_str!("../../stock/claim.lua")
    ),
);
static ADVANCE: Script = Script::new(
    "stock/advance",
    concat!(
        include_str!("../../run_id.lua"),
        include_str!("../../stock/prelude.lua"),
        include_str!("../../stock/advance.lua")
    ),
);
static RESTART: Script = Script::new(
    "stock/restart",
    concat!(include_str!("../../stock/prelude.lua"), include_str!("../../stock/restart.lua")),
);

/// The cursor of work that is done.
const DONE: &str = "done";

/// A piece of work to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Copying the buyers of an item.
    Copy {
        /// Event that offers the item.
        event_id: EventId,
        /// Item.
        item_id: ItemId,
        /// Whether the item was seen to be staged.
        is_staged: bool,
        /// Last version of its stock row whose changes a staged item misses; `None` if it is copied whatever it has.
        until: Option<i64>,
    },
    /// Comparing all events.
    Pass,
}

/// Outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The work is the claimant's, to go on from this cursor.
    Taken(String),
    /// Another is doing it.
    Busy,
    /// All of it was done.
    Done,
    /// The item was staged or lost since it was seen.
    Changed,
}

/// Progress of claimed work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// To this cursor.
    To(&'a str),
    /// To its end. Of an item, the buyers whose units changed from the first of these versions of its stock row to the
    /// last are copied.
    Done(Option<(i64, i64)>),
}

impl Stock {
    /// Claims work for `owner` until `term` from now, to begin with the cursor `begin` if nobody has begun.
    pub async fn claim(&self, work: Work, owner: &str, term: Duration, begin: &str) -> Result<Claim, RedisError> {
        let (is_staged, until) = match work {
            Work::Copy { is_staged, until, .. } => (u8::from(is_staged).to_string(), version_text(until)),
            Work::Pass => (String::new(), String::new()),
        };
        let args = Args::new().with(owner).with(micros(term)).with(begin).with(is_staged).with(until);
        let (outcome, cursor): (String, String) = self.ask(&CLAIM, &[self.work_key(work)], &args).await?;
        match outcome.as_str() {
            "TAKEN" => Ok(Claim::Taken(cursor)),
            "BUSY" => Ok(Claim::Busy),
            "DONE" => Ok(Claim::Done),
            "CHANGED" => Ok(Claim::Changed),
            _ => Err(RedisError::reply(CLAIM.name(), outcome)),
        }
    }

    /// Advances claimed work from the cursor `from`, and extends the claim to `term` from now. False if the work is not
    /// the owner's any more, or its cursor is another: then it was lost, or another does it.
    pub async fn advance(
        &self,
        work: Work,
        owner: &str,
        term: Duration,
        from: &str,
        progress: Progress<'_>,
    ) -> Result<bool, RedisError> {
        let (to, copied) = match progress {
            Progress::To(cursor) => (cursor, None),
            Progress::Done(copied) => (DONE, copied),
        };
        let first = version_text(copied.map(|(first, _)| first));
        let last = version_text(copied.map(|(_, last)| last));
        let args = Args::new().with(owner).with(from).with(to).with(micros(term)).with(first).with(last);
        self.ask(&ADVANCE, &[self.work_key(work)], &args).await
    }

    /// Releases claimed work at its cursor, so that another may go on at once. False if it is not the owner's any more.
    pub async fn give_up(&self, work: Work, owner: &str) -> Result<bool, RedisError> {
        let args = Args::new().with(owner).with("").with("").with(0_u64).with("").with("");
        self.ask(&ADVANCE, &[self.work_key(work)], &args).await
    }

    /// Resets work, so that the next claim begins anew, whoever has it and however far it is.
    pub async fn restart(&self, work: Work) -> Result<(), RedisError> {
        let _: u8 = self.ask(&RESTART, &[self.work_key(work)], &Args::new()).await?;
        Ok(())
    }

    fn work_key(&self, work: Work) -> String {
        match work {
            Work::Copy { event_id, item_id, .. } => self.keys().stock_item(event_id, item_id),
            Work::Pass => self.keys().stock_pass(),
        }
    }
}

fn version_text(version: Option<i64>) -> String {
    version.map_or_else(String::new, |version| version.to_string())
}

fn micros(term: Duration) -> u64 {
    u64::try_from(term.as_micros()).unwrap_or(u64::MAX)
}
