//! Gauges of the memory of a service's Redis, which evicts nothing: once full it refuses every write.

use opentelemetry::{global, metrics::Gauge};
use stampede_lua::{Redis, RedisError};

/// The gauges. Cheap to clone.
#[derive(Clone)]
pub struct RedisMemory {
    redis: Redis,
    used: Gauge<u64>,
    max: Gauge<u64>,
}

impl RedisMemory {
    /// Measures this Redis.
    pub fn new(redis: Redis) -> Self {
        let gauge = |name, about| {
            global::meter("stampede.service").u64_gauge(name).with_description(about).with_unit("By").build()
        };
        let used = gauge("stampede_redis_memory_used", "Memory that Redis has in use");
        let max = gauge("stampede_redis_memory_max", "Memory above which Redis refuses to write; 0 without a bound");
        Self { redis, used, max }
    }

    /// Measures once.
    pub async fn measure(&self) -> Result<(), RedisError> {
        let memory = self.redis.memory().await?;
        self.used.record(memory.used_bytes, &[]);
        self.max.record(memory.max_bytes, &[]);
        Ok(())
    }
}
