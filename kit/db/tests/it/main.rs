//! Units of work, statements, connections and schemas against the real database.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

mod literals;
mod opening;
mod pool;
mod read_only;
mod schema;
mod silent;
mod transact;
