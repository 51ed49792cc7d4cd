//! What every service of the mesh is put together from: its flags, its connections, its relay and consumer, its worker
//! loops, and the small forms that every RPC needs.
//!
//! It composes the other kits and holds no SQL, no script and no message.

#![warn(missing_docs)]

mod args;
mod decode;
mod every;
mod page;
mod parts;
mod redis_memory;
mod until;
mod work;

pub use args::{KafkaArgs, OrderWriteLimitArgs, RedisArgs, ServiceArgs, StorageArgs};
pub use decode::decode;
pub use page::{Page, Paging};
pub use parts::Parts;
pub use until::until_last;
pub use work::{Worker, work};
