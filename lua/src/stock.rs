//! The stock scripts: holds, sync and staging of an event's items.
//!
//! Redis is the fast filter in front of the ledger. Three kinds of keys belong to an event, all under its hash tag: the
//! event itself (window, arrivals), one hash an item (total, committed and held units, and the latter two for each
//! buyer), and the holds, one field an order, until the ledger has answered for it. Everything copied from the ledger
//! is absolute and carries the version of its row, so copies are idempotent and may arrive out of order. All keys of an
//! event expire at one time, with which it is staged; the copy of an item that is not staged is kept for an hour.
//!
//! An event remembers the run of the server on which it was last compared with the ledger. On another run, after a
//! restart or a failover, it is NOT_READY until it was compared again: it may be an earlier copy. So is one that was
//! rolled back to an earlier copy on the same run, once that is found.

mod claim;
mod pack;
mod read;
mod stage;

pub use self::{
    claim::{Claim, Progress, Work},
    pack::{
        Cause, Decision, HeldLine, Hold, InLedger, OpenHold, Reading, Refusal, Reservation, WantedLine, arguments,
        decisions,
    },
    read::{BuyerPage, HoldPage, ShelfEvent, ShelfItem, Snapshot},
    stage::{LedgerCopy, LedgerUnits, StagedItem, Staging},
};

use crate::{Args, FromRedisValue, Keys, Redis, RedisError, Script, Value, script::script};
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp};
use std::collections::BTreeSet;

script!(RESERVE, "stock/reserve", with_run_id);
script!(SNAPSHOT, "stock/snapshot", with_run_id);
script!(HOLDS, "stock/holds");
script!(BUYERS, "stock/buyers");
script!(FIND, "stock/find");
script!(DISTRUST, "stock/distrust");
static COUNT: Script =
    Script::new("stock/count", concat!(include_str!("../stock/prelude.lua"), include_str!("../stock/count.lua")));
static RECOUNT: Script =
    Script::new("stock/recount", concat!(include_str!("../stock/prelude.lua"), include_str!("../stock/recount.lua")));
static SYNC: Script =
    Script::new("stock/sync", concat!(include_str!("../stock/prelude.lua"), include_str!("../stock/sync.lua")));
static STAGE: Script = Script::new(
    "stock/stage",
    concat!(include_str!("../run_id.lua"), include_str!("../stock/prelude.lua"), include_str!("../stock/stage.lua")),
);

/// Most reservations that one call decides.
pub const MAX_RESERVATIONS: usize = stampede_vocab::limits::MAX_PER_CALL;

/// The stock of all events in one Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stock {
    redis: Redis,
}

impl Stock {
    /// The stock in this Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Whether it is in a cluster, in which events lie on several servers.
    pub fn is_cluster(&self) -> bool {
        self.redis.is_cluster()
    }

    /// Decides reservations of one event, each all or nothing, in the order given; the answers come in that order. A
    /// reply that does not parse fails alone. At most [`MAX_RESERVATIONS`], and no item twice in one of them.
    pub async fn reserve(
        &self,
        event: EventId,
        asks: &[Reservation],
    ) -> Result<Vec<Result<Decision, RedisError>>, RedisError> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let (items, args) = arguments(asks);
        let mut keys = vec![self.keys().stock_event(event), self.keys().stock_holds(event)];
        keys.extend(self.item_keys(event, &items));
        let replies: Vec<Value> = self.ask(&RESERVE, &keys, &args).await?;
        if replies.len() != asks.len() {
            return Err(RedisError::reply(RESERVE.name(), replies));
        }
        Ok(decisions(RESERVE.name(), replies))
    }

    /// Stages the items of an event or moves its window. False, and nothing changes, if a newer version is ready, or if
    /// since the event was compared the server has started anew, or the event was lost or distrusted.
    pub async fn stage(&self, staging: &Staging) -> Result<bool, RedisError> {
        let event = staging.event_id;
        let mut keys = vec![self.keys().stock_event(event), self.keys().stock_holds(event)];
        keys.extend(staging.items.iter().map(|item| self.keys().stock_item(event, item.item_id)));
        self.ask(&STAGE, &keys, &staging.args()).await
    }

    /// Copies some items from the ledger, and drops the holds that it has answered: `answered`, with the items that
    /// each order may hold. Returns how many were on hold.
    pub async fn sync(
        &self,
        event: EventId,
        ledger_copies: &[LedgerCopy],
        answered: &[(OrderId, Vec<ItemId>)],
    ) -> Result<u32, RedisError> {
        let drops: Vec<_> =
            answered.iter().map(|(order, items)| Dropped { order: *order, meant: None, items }).collect();
        self.sync_and_drop(event, ledger_copies, &drops).await
    }

    /// Releases holds of orders that will never reach the ledger, each named by its order and its `held_at`: one that
    /// was renewed since stays, and so does one that became unreadable. Returns how many were released.
    pub async fn release(&self, event: EventId, holds: &[(OrderId, Timestamp)]) -> Result<u32, RedisError> {
        if holds.is_empty() {
            return Ok(0);
        }
        let mut args = Args::new();
        for (order, _) in holds {
            args.push(order.to_string());
        }
        let found: Vec<Option<String>> = self.ask(&FIND, &[self.keys().stock_holds(event)], &args).await?;
        let mut held = Vec::new();
        for (&(order, held_at), packed) in holds.iter().zip(found) {
            if let Some(Ok(hold)) = packed.map(|packed| Hold::parse(FIND.name(), &packed)) {
                held.push((order, held_at, hold.items()));
            }
        }
        if held.is_empty() {
            return Ok(0);
        }
        let drops = held.iter().map(|(order, held_at, items)| Dropped { order: *order, meant: Some(*held_at), items });
        self.sync_and_drop(event, &[], &drops.collect::<Vec<_>>()).await
    }

    /// Reads the event and these items as they are at one instant.
    pub async fn snapshot(&self, event: EventId, items: &[ItemId]) -> Result<Snapshot, RedisError> {
        let mut keys = vec![self.keys().stock_event(event), self.keys().stock_holds(event)];
        keys.extend(self.item_keys(event, items));
        let reply = self.ask(&SNAPSHOT, &keys, &Args::new()).await?;
        Snapshot::parse(SNAPSHOT.name(), reply)
    }

    /// Distrusts the event, of which Redis was rolled back to an earlier copy: it is NOT_READY until it was compared
    /// with the ledger, and its holds are gone. False, and nothing changes, if it is NOT_READY already, or if Redis has
    /// given all places of arrival up to `last_place`, the last one in the ledger.
    pub async fn distrust(&self, event: EventId, last_place: i64) -> Result<bool, RedisError> {
        let keys = [self.keys().stock_event(event), self.keys().stock_holds(event)];
        self.ask(&DISTRUST, &keys, &Args::new().with(last_place)).await
    }

    /// Reads one page of the holds that are at least `min_age` old. Begin with cursor 0; a page scans about `count`
    /// holds and may return none of them.
    pub async fn aged_holds(
        &self,
        event: EventId,
        cursor: u64,
        count: u32,
        min_age: std::time::Duration,
    ) -> Result<HoldPage, RedisError> {
        let min_age_us = u64::try_from(min_age.as_micros()).unwrap_or(u64::MAX);
        let args = Args::new().with(cursor).with(count).with(min_age_us);
        let reply = self.ask(&HOLDS, &[self.keys().stock_holds(event)], &args).await?;
        HoldPage::parse(HOLDS.name(), reply)
    }

    async fn sync_and_drop(
        &self,
        event: EventId,
        ledger_copies: &[LedgerCopy],
        drops: &[Dropped<'_>],
    ) -> Result<u32, RedisError> {
        let held = drops.iter().flat_map(|drop| drop.items.iter().copied());
        let items = distinct(ledger_copies.iter().map(|ledger_copy| ledger_copy.item_id).chain(held));
        let mut args = item_ids(&items).with(drops.len());
        for drop in drops {
            args.push(drop.order.to_string());
            args.push(drop.meant.map_or_else(String::new, |held_at| held_at.micros().to_string()));
        }
        for ledger_copy in ledger_copies {
            ledger_copy.push_to(&mut args, &items);
        }
        let mut keys = vec![self.keys().stock_holds(event)];
        keys.extend(self.item_keys(event, &items));
        self.ask(&SYNC, &keys, &args).await
    }

    /// Reads one page of the held and committed units of an item by buyer, for comparing them with the ledger. Begin
    /// with cursor 0; a page scans about `count` fields and may return no buyer.
    pub async fn buyers(&self, event: EventId, item: ItemId, cursor: u64, count: u32) -> Result<BuyerPage, RedisError> {
        let args = Args::new().with(cursor).with(count);
        let reply = self.ask(&BUYERS, &[self.keys().stock_item(event, item)], &args).await?;
        BuyerPage::parse(BUYERS.name(), reply)
    }

    /// Sets the held units of these items, and of the buyers who have holds, to the sums of the holds. Returns how many
    /// numbers of each item were wrong; its other buyers are then to be counted by [`recount`](Self::recount).
    pub async fn count_held(&self, event: EventId, items: &[ItemId]) -> Result<Vec<u32>, RedisError> {
        let mut keys = vec![self.keys().stock_holds(event)];
        keys.extend(self.item_keys(event, items));
        let wrong: Vec<u32> = self.ask(&COUNT, &keys, &item_ids(items)).await?;
        if wrong.len() == items.len() { Ok(wrong) } else { Err(RedisError::reply(COUNT.name(), wrong)) }
    }

    /// Sets the held units of an item to the sums of the holds, for one page of its buyers. Begin with cursor 0; a page
    /// scans about `count` fields. Returns where the next page begins, none after the last, and how many numbers were
    /// wrong.
    pub async fn recount(
        &self,
        event: EventId,
        item: ItemId,
        cursor: u64,
        count: u32,
    ) -> Result<(Option<u64>, u32), RedisError> {
        let keys = [self.keys().stock_holds(event), self.keys().stock_item(event, item)];
        let args = Args::new().with(item.to_string()).with(cursor).with(count);
        let (next, wrong): (u64, u32) = self.ask(&RECOUNT, &keys, &args).await?;
        Ok(((next != 0).then_some(next), wrong))
    }

    async fn ask<T: FromRedisValue>(&self, script: &Script, keys: &[String], args: &Args) -> Result<T, RedisError> {
        let reply = self.redis.invoke(script, keys, args).await?;
        T::from_redis_value(reply).map_err(|error| RedisError::reply(script.name(), error))
    }

    fn keys(&self) -> &Keys {
        self.redis.keys()
    }

    fn item_keys<'a>(&'a self, event: EventId, items: &'a [ItemId]) -> impl Iterator<Item = String> + 'a {
        items.iter().map(move |item| self.keys().stock_item(event, *item))
    }
}

/// A hold that is to be dropped.
struct Dropped<'a> {
    order: OrderId,
    /// Its `held_at`; `None` for whatever hold there is.
    meant: Option<Timestamp>,
    /// The items that it may hold.
    items: &'a [ItemId],
}

fn distinct(items: impl Iterator<Item = ItemId>) -> Vec<ItemId> {
    items.collect::<BTreeSet<_>>().into_iter().collect()
}

fn item_ids(items: &[ItemId]) -> Args {
    let mut args = Args::new();
    for item in items {
        args.push(item.to_string());
    }
    args
}

/// Returns the index of the item in the sorted list, from 1 as in the scripts.
fn place(items: &[ItemId], item: ItemId) -> usize {
    items.binary_search(&item).expect("the list holds every item of the call") + 1
}
