//! The state that all requests share: the route table, the channels to the services, the tokens, the bounds.

use crate::{
    acts::Acts,
    auth::{Auth, Tickets},
    caching::Caching,
    grpc::Own,
    hold::{Holds, SharedStreams},
    layers::Metrics,
    openapi::Pages,
    routes::{Endpoint, Table},
    shared_reads::SharedReads,
    transcode::Transcoder,
    upstream::{Channels, Upstream},
};
use bytes::Bytes;
use stampede_chassis::MeshChannel;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The gateway, apart from its server.
pub struct Gateway {
    pub table: Table,
    pub upstream: Arc<Upstream>,
    pub transcoder: Transcoder,
    /// The streams over gRPC that are the same for all.
    pub shared: SharedStreams<Bytes>,
    /// The gRPC services of the gateway itself.
    pub own: Own,
    pub acts: Arc<Acts>,
    pub auth: Auth,
    pub tickets: Tickets,
    pub caching: Caching,
    /// The reads that are the same for all; `None` if each makes a call of its own.
    pub reads: Option<SharedReads>,
    pub pages: Pages,
    pub holds: Holds,
    /// Longest time in which a watcher takes nothing while something waits.
    pub watcher_stall: Duration,
    pub metrics: Metrics,
    /// Cancelled when the gateway shuts down.
    pub draining: CancellationToken,
}

/// A service of the contract without a configured upstream.
#[derive(Debug, thiserror::Error)]
#[error("the contract routes to {service}, and no upstream of that package is configured")]
pub struct NoUpstream {
    service: String,
}

/// Returns the channel of each service of the table, by its package: `order` for `stampede.order.v1.OrderService`.
pub fn upstreams(table: &Table, channels: &HashMap<&str, MeshChannel>) -> Result<Channels, NoUpstream> {
    let mut upstreams = Channels::new();
    for route in table.routes() {
        let Endpoint::Rpc(rpc) = &route.endpoint else { continue };
        let package = rpc.service.split('.').nth(1).unwrap_or_default();
        let channel = channels.get(package).ok_or_else(|| NoUpstream { service: rpc.service.clone() })?;
        upstreams.insert(rpc.service.clone(), channel.clone());
    }
    Ok(upstreams)
}
