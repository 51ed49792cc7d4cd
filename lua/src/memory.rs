//! How much memory a Redis has in use, and whether something new may still be put there.

use crate::{Redis, RedisError};
use redis::{FromRedisValue, Value};
use std::cmp::Ordering;

/// Share of `maxmemory`, in per cent, above which no new event or campaign is staged. The rest is for buyers and claims
/// of staged ones: a full server refuses their writes too, as it evicts nothing.
const FILLED_PERCENT: u64 = 80;
/// The same for logins, which cost a stranger nothing: they are refused before they can hold up a sale.
const LOGINS_PERCENT: u64 = 75;

/// The memory of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Most bytes that it uses before it refuses to write (`maxmemory`); 0 where it has no such bound.
    pub max_bytes: u64,
}

impl Memory {
    /// Parses the reply to `INFO memory`; `None` if a field is missing.
    fn parse(info: &str) -> Option<Self> {
        let bytes = |name| field(info, name)?.parse().ok();
        Some(Self { used_bytes: bytes("used_memory")?, max_bytes: bytes("maxmemory")? })
    }

    /// Compares the shares in use. A server without a bound is the emptiest.
    fn compare(&self, other: &Self) -> Ordering {
        let part = |one: &Self, of: &Self| match one.max_bytes {
            0 => 0,
            _ => u128::from(one.used_bytes) * u128::from(of.max_bytes.max(1)),
        };
        part(self, other).cmp(&part(other, self))
    }

    /// Whether more than so much is in use. Never where there is no bound.
    fn is_over(self, percent: u64) -> bool {
        let percent_of = |bytes: u64| u128::from(bytes) * 100;
        self.max_bytes > 0 && percent_of(self.used_bytes) > u128::from(self.max_bytes) * u128::from(percent)
    }
}

impl Redis {
    /// Reads how much memory is in use; in a cluster, of the master that is filled the most.
    pub async fn memory(&self) -> Result<Memory, RedisError> {
        let memories = self.memory_infos().await?.iter().map(|info| Memory::parse(info)).collect::<Option<Vec<_>>>();
        let fullest = memories.and_then(|memories| memories.into_iter().max_by(|one, other| one.compare(other)));
        fullest.ok_or_else(|| {
            RedisError::Refused("this Redis does not report used_memory and maxmemory in INFO memory".to_owned())
        })
    }

    /// Fails as [`RedisError::Filled`] if so much memory is in use that no new event or campaign may be staged.
    /// Restaging after a loss must not call this.
    pub async fn require_room(&self) -> Result<(), RedisError> {
        let memory = self.memory().await?;
        if memory.is_over(FILLED_PERCENT) { Err(RedisError::Filled(memory)) } else { Ok(()) }
    }

    /// Returns whether more logins may be stored. Those that are stored already go on.
    pub async fn has_room_for_logins(&self) -> Result<bool, RedisError> {
        Ok(!self.memory().await?.is_over(LOGINS_PERCENT))
    }

    /// Reads `INFO memory` of the server, or of each master of a cluster.
    pub(crate) async fn memory_infos(&self) -> Result<Vec<String>, RedisError> {
        let replies = self.command_on_all_masters(redis::cmd("INFO").arg("memory")).await?;
        let text = |reply: Value| Ok(String::from_redis_value(reply).map_err(redis::RedisError::from)?);
        replies.into_iter().map(text).collect()
    }
}

/// Returns a field of the reply to `INFO`, which has one in each line.
pub(crate) fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Memory\r\nused_memory:800\r\nused_memory_human:800B\r\nmaxmemory:1000\r\n\
                        maxmemory_policy:noeviction\r\n";

    #[test]
    fn the_fields_are_read_by_their_whole_names() {
        assert_eq!(Memory::parse(INFO), Some(Memory { used_bytes: 800, max_bytes: 1_000 }));
        assert_eq!(field(INFO, "maxmemory_policy"), Some("noeviction"));
        for without in ["", "# Memory\r\nused_memory:800\r\n", "used_memory:?\r\nmaxmemory:1\r\n"] {
            assert_eq!(Memory::parse(without), None, "{without}");
        }
    }

    #[test]
    fn the_fullest_of_some_is_the_one_with_the_largest_part_in_use() {
        let memory = |used_bytes, max_bytes| Memory { used_bytes, max_bytes };
        assert!(memory(800, 1_000).compare(&memory(900, 2_000)).is_gt());
        assert!(memory(1, 1_000).compare(&memory(900, 0)).is_gt());
        assert!(memory(10, 0).compare(&memory(900, 0)).is_eq());
    }

    #[test]
    fn what_is_new_may_fill_four_fifths_and_any_amount_of_what_has_no_bound() {
        let is_filled = |used_bytes, max_bytes| Memory { used_bytes, max_bytes }.is_over(FILLED_PERCENT);
        assert!(!is_filled(800, 1_000));
        assert!(is_filled(801, 1_000));
        assert!(!is_filled(u64::MAX, 0));
        assert!(is_filled(u64::MAX, u64::MAX));
    }
}
