//! The clock of Redis, by which every script decides.

use crate::{Redis, RedisError};
use redis::{FromRedisValue, Value};
use stampede_vocab::Timestamp;

impl Redis {
    /// Returns the time by the clock of the server; in a cluster by that of the master whose clock is furthest behind,
    /// by which nothing is early for any.
    pub async fn time(&self) -> Result<Timestamp, RedisError> {
        let replies = self.command_on_all_masters(&redis::cmd("TIME")).await?;
        let times = replies.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        times.into_iter().min().ok_or_else(|| RedisError::Pool("no master returned its time".to_owned()))
    }
}

/// Parses the reply to `TIME`: seconds, and the microseconds of the current one.
fn parse(reply: Value) -> Result<Timestamp, RedisError> {
    let (seconds, micros) = <(i64, i64)>::from_redis_value(reply).map_err(redis::RedisError::from)?;
    Ok(Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_seconds_and_microseconds_as_text() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let time = parse(Value::Array(vec![text("1767225600"), text("42")])).unwrap();
        assert_eq!(time, Timestamp::from_micros(1_767_225_600_000_042));
        assert!(parse(Value::Array(vec![text("now")])).is_err());
        assert!(parse(Value::Nil).is_err());
    }
}
