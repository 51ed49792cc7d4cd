//! What tests stand on, on real servers: ways to Redis, proxies, processes that start, and schemas that are copied.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

mod admin_redis;
mod proxy;
mod starting;
mod template;
