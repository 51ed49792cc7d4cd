//! Snapshots of an event in Redis: for showing it, for comparing it with the ledger, for finding old holds.

use super::pack::{OpenHold, field};
use crate::{FromRedisValue, RedisError, Value};
use stampede_vocab::{Timestamp, UserId};

/// An event and some of its items at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// That instant, by the clock of Redis.
    pub now: Timestamp,
    /// The run of the server that answered.
    pub run_id: String,
    /// The event; none if it is not staged.
    pub event: Option<ShelfEvent>,
    /// How many holds of the event there are.
    pub hold_count: u32,
    /// The items in the order requested; none for one that is not staged.
    pub items: Vec<Option<ShelfItem>>,
}

/// An event as it is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfEvent {
    /// Version of the event.
    pub event_version: i64,
    /// Reservations are taken from here on ...
    pub open_time: Timestamp,
    /// ... until before here.
    pub close_time: Timestamp,
    /// How many holds were ever granted.
    pub arrivals: i64,
    /// When Redis forgets all of it; none for one that an earlier release has staged.
    pub expires_at: Option<Timestamp>,
    /// Whether it was compared with the ledger since the server began to run. Until then it may be an earlier copy, and
    /// nothing is granted. Nor is it once it was distrusted.
    pub is_compared: bool,
}

/// An item as Redis has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfItem {
    /// Units there are to sell.
    pub total_units: i32,
    /// Units in the ledger, by the last copy.
    pub committed_units: i32,
    /// Units on hold.
    pub held_units: i32,
    /// Gifts there are.
    pub gift_total_units: i32,
    /// Gifts in the ledger, by the last copy.
    pub gift_committed_units: i32,
    /// Gifts on hold.
    pub gift_held_units: i32,
    /// Version of the stock row that was copied.
    pub ledger_version: i64,
    /// From this version of the stock row on ...
    pub stale_from: Option<i64>,
    /// ... up to this one a change was skipped, so the units of single buyers are stale.
    pub stale_at: Option<i64>,
    /// Whether the units on hold of single buyers are to be counted by [`recount`](super::Stock::recount).
    pub has_uncounted_buyers: bool,
}

impl ShelfItem {
    /// Units that can still be bought.
    pub fn left_units(&self) -> i32 {
        (self.total_units - self.committed_units - self.held_units).max(0)
    }

    /// Gifts that can still be had.
    pub fn left_gift_units(&self) -> i32 {
        (self.gift_total_units - self.gift_committed_units - self.gift_held_units).max(0)
    }
}

/// One page of holds.
#[derive(Debug, Clone)]
pub struct HoldPage {
    /// When it was read, by the clock of Redis.
    pub now: Timestamp,
    /// Where the next page begins; none after the last.
    pub next: Option<u64>,
    /// Holds that are old enough. One may occur twice.
    pub holds: Vec<OpenHold>,
    /// Parse errors of the others on the page, which another release wrote, or somebody by hand.
    pub unreadable: Vec<RedisError>,
}

/// One page of the units of one item by buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuyerPage {
    /// Where the next page begins; none after the last.
    pub next: Option<u64>,
    /// Units on hold. A buyer may occur twice.
    pub held: Vec<(UserId, i32)>,
    /// Units in the ledger, by the last copy. A buyer may occur twice.
    pub committed: Vec<(UserId, i32)>,
}

/// version, opens_us, closes_us, arrivals, expires_ms or -1, 1 if it was compared on this run or 0
type EventReply = Vec<i64>;
/// total, committed, held, gift_total, gift_committed, gift_held, ledger_version, stale_from or -1, stale_at or -1, 1
/// if buyers are to be counted or -1
type ItemReply = Vec<i64>;

impl Snapshot {
    pub(super) fn parse(script: &'static str, reply: Value) -> Result<Self, RedisError> {
        let (now_us, run_id, event, hold_count, items) =
            <(i64, String, Option<EventReply>, u32, Vec<Option<ItemReply>>)>::from_redis_value(reply)
                .map_err(|error| RedisError::reply(script, error))?;
        Ok(Self {
            now: Timestamp::from_micros(now_us),
            run_id,
            event: event.map(|numbers| ShelfEvent::parse(script, &numbers)).transpose()?,
            hold_count,
            items: items
                .into_iter()
                .map(|item| item.map(|numbers| ShelfItem::parse(script, &numbers)).transpose())
                .collect::<Result<_, _>>()?,
        })
    }
}

impl ShelfEvent {
    fn parse(script: &'static str, numbers: &[i64]) -> Result<Self, RedisError> {
        let &[event_version, opens_us, closes_us, arrivals, expires_ms, is_compared] = numbers else {
            return Err(RedisError::reply(script, numbers));
        };
        let (open_time, close_time) = (Timestamp::from_micros(opens_us), Timestamp::from_micros(closes_us));
        let expires_at = (expires_ms >= 0).then(|| Timestamp::from_micros(expires_ms.saturating_mul(1_000)));
        Ok(Self { event_version, open_time, close_time, arrivals, expires_at, is_compared: is_compared == 1 })
    }
}

impl ShelfItem {
    fn parse(script: &'static str, numbers: &[i64]) -> Result<Self, RedisError> {
        let [units @ .., ledger_version, stale_from, stale_at, uncounted] = numbers else {
            return Err(RedisError::reply(script, numbers));
        };
        let units: Vec<i32> = units.iter().filter_map(|units| i32::try_from(*units).ok()).collect();
        let [total_units, committed_units, held_units, gift_total_units, gift_committed_units, gift_held_units] =
            units[..]
        else {
            return Err(RedisError::reply(script, numbers));
        };
        Ok(Self {
            total_units,
            committed_units,
            held_units,
            gift_total_units,
            gift_committed_units,
            gift_held_units,
            ledger_version: *ledger_version,
            stale_from: (*stale_from >= 0).then_some(*stale_from),
            stale_at: (*stale_at >= 0).then_some(*stale_at),
            has_uncounted_buyers: *uncounted == 1,
        })
    }
}

impl HoldPage {
    pub(super) fn parse(script: &'static str, reply: Value) -> Result<Self, RedisError> {
        let (now_us, cursor, flat) =
            <(i64, u64, Vec<String>)>::from_redis_value(reply).map_err(|error| RedisError::reply(script, error))?;
        let (mut holds, mut unreadable) = (Vec::new(), Vec::new());
        for pair in flat.chunks_exact(2) {
            match OpenHold::parse(script, &pair[0], &pair[1]) {
                Ok(hold) => holds.push(hold),
                Err(error) => unreadable.push(error),
            }
        }
        Ok(Self { now: Timestamp::from_micros(now_us), next: (cursor != 0).then_some(cursor), holds, unreadable })
    }
}

impl BuyerPage {
    pub(super) fn parse(script: &'static str, reply: Value) -> Result<Self, RedisError> {
        let (cursor, held, committed) = <(u64, Vec<String>, Vec<String>)>::from_redis_value(reply)
            .map_err(|error| RedisError::reply(script, error))?;
        let units = |flat: &[String]| -> Result<_, RedisError> {
            flat.chunks_exact(2).map(|pair| Ok((field(script, &pair[0])?, field(script, &pair[1])?))).collect()
        };
        Ok(Self { next: (cursor != 0).then_some(cursor), held: units(&held)?, committed: units(&committed)? })
    }
}
