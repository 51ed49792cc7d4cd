//! Real servers and real processes for tests, each test in a world of its own.
//!
//! `cargo xtask test` starts Redis, the database and Kafka once and names them in the environment. A [`World`] is one
//! test's share of them: its own schemas, key prefix and topics. A [`Mesh`] is Stampede itself, as processes, in that
//! world. A [`Collector`] keeps the spans that they send. A [`Proxy`] freezes or slows down the connections between a
//! process and a server, or breaks off a transaction; a [`KafkaLink`] does so with those to Kafka. No test stops a
//! server that others use. There are no mocks.
//!
//! ```no_run
//! use stampede_testkit::{MeshBuilder, Service, World, eventually};
//!
//! async fn an_order_service_that_was_killed_starts_again() -> anyhow::Result<()> {
//!     let world = World::prepared().await?;
//!     let mut mesh = MeshBuilder::default().start(&world, [Service::Order]).await?;
//!     mesh.kill_9(Service::Order)?;
//!     mesh.restart(Service::Order).await?;
//!     let db = world.database(Service::Order).await?;
//!     eventually("its schema answers", || async { db.acquire().await.ok() }).await;
//!     mesh.stop().await
//! }
//! ```

#![warn(missing_docs)]

mod admin;
mod breaks;
mod callers;
mod cluster;
mod collector;
mod eventually;
mod floating;
mod heavy;
mod kafka;
mod mesh;
mod metrics;
mod proxy;
mod redis;
mod running;
mod statements;
mod template;
mod world;

pub use self::redis::{OwnRedis, RedisCopy};
pub use admin::AdminRedis;
pub use breaks::{Break, BreakAt};
pub use callers::{
    MESH_SECRET, as_buyer, as_inventory_service, as_operator, as_order_service, buyer, forged_identity, signed_identity,
};
pub use cluster::OwnCluster;
pub use collector::{CollectedSpan, Collector};
pub use eventually::{eventually, within_deadline};
pub use floating::FloatingAddress;
pub use heavy::{HeavyPermit, heavy};
pub use kafka::KafkaLink;
pub use mesh::{Alone, Mesh, MeshBuilder};
pub use metrics::Metrics;
pub use proxy::{FreezeAt, Proxy, Writes};
pub use stampede_identity::{Caller, IDENTITY_METADATA, Role};
pub use stampede_vocab::{Process, Service};
pub use world::World;
