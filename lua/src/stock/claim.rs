//! Work that goes page by page and is done by one worker at a time: copying the buyers of an item, and the pass over
//! all events. The claim and how far the work is lie in Redis, with what was done.

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

/// The cursor of work of which all was done.
const DONE: &str = "done";

/// What is claimed.
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
    },
    /// Comparing all events.
    Pass,
}

/// What becomes of a claim.
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

/// How claimed work moves on.
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
        let is_staged = match work {
            Work::Copy { is_staged, .. } => u8::from(is_staged).to_string(),
            Work::Pass => String::new(),
        };
        let args = Args::new().with(owner).with(micros(term)).with(begin).with(is_staged);
        let (outcome, cursor): (String, String) = self.ask(&CLAIM, &[self.work_key(work)], &args).await?;
        match outcome.as_str() {
            "TAKEN" => Ok(Claim::Taken(cursor)),
            "BUSY" => Ok(Claim::Busy),
            "DONE" => Ok(Claim::Done),
            "CHANGED" => Ok(Claim::Changed),
            _ => Err(RedisError::reply(CLAIM.name(), outcome)),
        }
    }

    /// Moves claimed work on from the cursor `from`, and the end of the claim to `term` from now. False if the work is
    /// not the owner's any more, or not where it was: then it was lost, or another does it.
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
        let text = |version: Option<i64>| version.map_or_else(String::new, |version| version.to_string());
        let (first, last) = (text(copied.map(|(first, _)| first)), text(copied.map(|(_, last)| last)));
        let args = Args::new().with(owner).with(from).with(to).with(micros(term)).with(first).with(last);
        self.ask(&ADVANCE, &[self.work_key(work)], &args).await
    }

    /// Gives claimed work up where it is, so that another may go on at once. False if it is not the owner's any more.
    pub async fn give_up(&self, work: Work, owner: &str) -> Result<bool, RedisError> {
        let args = Args::new().with(owner).with("").with("").with(0_u64).with("").with("");
        self.ask(&ADVANCE, &[self.work_key(work)], &args).await
    }

    /// Makes work begin anew with the next claim, whoever has it and however far it is.
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

fn micros(term: Duration) -> u64 {
    u64::try_from(term.as_micros()).unwrap_or(u64::MAX)
}
