//! The logins whose access tokens are refused, from the moment that each was revoked until its tokens have expired.
//!
//! An access token is verified without a server, so every gateway polls this list. It is one list in one hash slot, and
//! bounded.

use super::{REVOKE, REVOKED};
use crate::{Args, FromRedisValue, Redis, RedisError};
use stampede_vocab::Timestamp;

/// Most logins on the list: some 20 MB. Whoever revokes one more is refused.
const MAX_LOGINS: usize = 100_000;
/// Most entries of one answer, so that no other script waits for long.
const PAGE: usize = 1_000;
/// An end is rounded up to this, so that a login that is revoked over and over has few entries.
const END_STEP_MS: i64 = 60_000;

/// One login whose access tokens are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its name.
    pub login: String,
    /// When its last token has expired.
    pub until: Timestamp,
}

/// Stores that the access tokens of `login`, a name without spaces, are refused. They expire at `until` at the latest.
/// Returns `false` and does nothing if the list is full.
pub async fn revoke(redis: &Redis, login: &str, until: Timestamp) -> Result<bool, RedisError> {
    let keys = [redis.keys().gate_revoked(), redis.keys().gate_revoked_since()];
    let until_ms = (until.micros() / 1_000 / END_STEP_MS + 1) * END_STEP_MS;
    let args = Args::new().with(format!("{login} {until_ms}")).with(until_ms).with(MAX_LOGINS);
    let reply = redis.invoke(&REVOKE, &keys, &args).await?;
    bool::from_redis_value(reply).map_err(|error| RedisError::reply(REVOKE.name(), error))
}

/// Returns the logins revoked since then, and the time from which to go on reading.
pub async fn revoked_since(redis: &Redis, since: Timestamp) -> Result<(Vec<Revocation>, Timestamp), RedisError> {
    let (mut all, mut since) = (Vec::new(), since);
    loop {
        let (page, last) = page(redis, since).await?;
        let is_whole = page.len() < PAGE;
        all.extend(page);
        match last {
            // A page that is all of one time would be read again for ever.
            Some(last) if !is_whole && last > since => since = last,
            last => return Ok((all, last.unwrap_or(since))),
        }
    }
}

async fn page(redis: &Redis, since: Timestamp) -> Result<(Vec<Revocation>, Option<Timestamp>), RedisError> {
    let args = Args::new().with(since.micros()).with(PAGE);
    let reply = redis.invoke(&REVOKED, &[redis.keys().gate_revoked_since()], &args).await?;
    let words = Vec::<String>::from_redis_value(reply).map_err(|error| RedisError::reply(REVOKED.name(), error))?;
    read_page(&words).ok_or_else(|| RedisError::reply(REVOKED.name(), words))
}

fn read_page(words: &[String]) -> Option<(Vec<Revocation>, Option<Timestamp>)> {
    let (mut page, mut last) = (Vec::new(), None);
    for entry in words.chunks(2) {
        let [entry, written_us] = entry else { return None };
        let (login, until_ms) = entry.split_once(' ')?;
        let until = Timestamp::from_micros(until_ms.parse::<i64>().ok()?.checked_mul(1_000)?);
        page.push(Revocation { login: login.to_owned(), until });
        last = Some(Timestamp::from_micros(written_us.parse().ok()?));
    }
    Some((page, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_entries_with_their_times() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (page, last) = read_page(&words(&["a 60000", "5", "b 120000", "7"])).unwrap();
        let until =
            |login: &str, ms: i64| Revocation { login: login.to_owned(), until: Timestamp::from_micros(ms * 1_000) };
        assert_eq!(page, [until("a", 60_000), until("b", 120_000)]);
        assert_eq!(last, Some(Timestamp::from_micros(7)));
        assert_eq!(read_page(&[]), Some((Vec::new(), None)));
        for odd in [&["a 60000"][..], &["a", "5"], &["a x", "5"], &["a 1", "x"]] {
            assert_eq!(read_page(&words(odd)), None, "{odd:?}");
        }
    }
}
