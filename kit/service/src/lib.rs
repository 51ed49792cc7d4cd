//! The parts of every service of the mesh: flags, connections, relay and consumer, worker loops, and helpers of RPCs.
//!
//! It composes the other kits and holds no SQL, no script and no message.
//!
//! ```no_run
//! use stampede_chassis::{Grpc, Workers};
//! use stampede_service::{Parts, ServiceArgs};
//! use std::{convert::Infallible, future::ready, time::Duration};
//!
//! async fn build(args: ServiceArgs, workers: Workers, grpc: Grpc) -> anyhow::Result<Grpc> {
//!     let parts = Parts::connect(stampede_vocab::Service::Order, &args, workers).await?;
//!     let (outbox, second) = (parts.outbox.clone(), Duration::from_secs(1));
//!     parts.every("waking the relay", second, second, move || {
//!         outbox.wake();
//!         ready(Ok::<(), Infallible>(()))
//!     });
//!     Ok(parts.serve(grpc))
//! }
//! ```

#![warn(missing_docs)]

mod args;
mod decode;
mod every;
mod once_a_minute;
mod page;
mod parts;
mod redis_memory;
mod until;
mod work;

pub use args::{
    KafkaArgs, MessageIds, OrderWriteLimitArgs, ProviderTimeoutArgs, RedisArgs, ServiceArgs, StorageArgs, WatchArgs,
};
pub use decode::decode;
pub use once_a_minute::OnceAMinute;
pub use page::{Page, Paging};
pub use parts::Parts;
pub use until::until_last;
pub use work::{Worker, work};
