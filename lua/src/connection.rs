//! Connections to Redis: to one server, or to every node of a cluster.

use crate::{RedisError, address::Address};
use deadpool::managed::{self, Metrics, RecycleResult};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
};
use std::time::Duration;

/// Longest wait for an answer, of a server or of a cluster, the wait for a connection included. A caller may wait less.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is pinged before it is used. A ping each time would be most of the cost of a
/// small script.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Longest wait for one node of a cluster to take a connection. A new connection waits for a node that hangs twice,
/// first as one of the URL and then as one that the others name. Both have to fit into the shortest time of a call,
/// the half second of the gateway's limits, and the call itself follows.
pub(crate) const NODE_CONNECT_TIMEOUT: Duration = Duration::from_millis(150);
/// How many waits for an answer of one node fit into the time of a call. While the client learns the slots anew, it
/// serves no call, and waits for a node that is away. A node that stood still for longer is asked again.
const ANSWERS_PER_CALL: u32 = 2;
/// Most tries of one call on a cluster. About every other one comes after a pause, so they outlast the time of a call,
/// which ends them all: a call waits as long as it may for a replica to take over, or for a slot to have moved.
const NODE_RETRIES: u32 = 50;
/// Shortest and longest pause between two tries, in milliseconds.
const RETRY_PAUSES_MS: (u64, u64) = (20, 200);

/// Opens connections, and pings those that were idle.
pub(crate) enum Connections {
    Server(Box<deadpool_redis::Manager>),
    Cluster(Box<ClusterClient>),
}

/// The connection that commands are sent on.
pub(crate) enum Link {
    Server(MultiplexedConnection),
    /// Leads to every node. It follows a slot that moves, and connects again to a node that was lost.
    Cluster(ClusterConnection),
}

impl Connections {
    /// Fails for a URL that the client cannot read.
    pub(crate) fn to(address: Address) -> Result<Self, RedisError> {
        match address {
            Address::Server(url) => {
                // The default of the client gives up after half a second, which a server that is busy or writes a
                // snapshot takes.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(TIMEOUT))
                    .set_response_timeout(Some(TIMEOUT));
                Ok(Self::Server(Box::new(deadpool_redis::Manager::new_with_config(url, config)?)))
            }
            Address::Cluster(nodes) => {
                let (shortest, longest) = RETRY_PAUSES_MS;
                let client = ClusterClient::builder(nodes)
                    .connection_timeout(NODE_CONNECT_TIMEOUT)
                    .response_timeout(TIMEOUT / ANSWERS_PER_CALL)
                    .overall_response_timeout(Some(TIMEOUT))
                    .retries(NODE_RETRIES)
                    .min_retry_wait(shortest)
                    .max_retry_wait(longest)
                    .build()?;
                Ok(Self::Cluster(Box::new(client)))
            }
        }
    }
}

impl managed::Manager for Connections {
    type Type = Link;
    type Error = redis::RedisError;

    async fn create(&self) -> Result<Link, redis::RedisError> {
        match self {
            Self::Server(manager) => {
                let mut conn = manager.create().await?;
                let info: String = redis::cmd("INFO").arg("server").query_async(&mut conn).await?;
                ensure_standalone(&info)?;
                Ok(Link::Server(conn))
            }
            Self::Cluster(client) => Ok(Link::Cluster(client.get_async_connection().await?)),
        }
    }

    async fn recycle(&self, link: &mut Link, metrics: &Metrics) -> RecycleResult<redis::RedisError> {
        match (self, link) {
            (Self::Server(manager), Link::Server(link)) if metrics.last_used() >= TRUSTED_FOR => {
                manager.recycle(link, metrics).await
            }
            // One to a cluster mends itself when it is used.
            _ => Ok(()),
        }
    }
}

impl Link {
    /// Runs a command on the server, or on each master of the cluster: then the reply is a map by their addresses.
    pub(crate) async fn ask_masters(&mut self, command: &Cmd) -> Result<Value, redis::RedisError> {
        match self {
            Self::Server(conn) => command.query_async(conn).await,
            Self::Cluster(conn) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                conn.route_command(command.clone(), masters).await?.extract_error()
            }
        }
    }
}

/// Runs commands on keys, those of a cluster on the master that has the first key.
impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(conn) => conn.req_packed_command(cmd),
            Self::Cluster(conn) => conn.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(conn) => conn.req_packed_commands(cmd, offset, count),
            Self::Cluster(conn) => conn.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(conn) => conn.get_db(),
            Self::Cluster(conn) => conn.get_db(),
        }
    }
}

/// Fails for a node of a cluster, which has only some of the keys, by its answer to `INFO server`.
fn ensure_standalone(info: &str) -> Result<(), redis::RedisError> {
    let mode = info.lines().find_map(|line| line.strip_prefix("redis_mode:")).unwrap_or_default();
    if mode.trim() == "cluster" {
        let kind = ErrorKind::InvalidClientConfig;
        return Err((kind, "the server is a node of a cluster: name it as redis-cluster://host:port").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_a_cluster_is_no_server_of_its_own() {
        assert_eq!(ensure_standalone("# Server\r\nredis_mode:standalone\r\ntcp_port:6379\r\n"), Ok(()));
        let error = ensure_standalone("redis_mode:cluster\r\ntcp_port:6379\r\n").expect_err("a node of a cluster");
        assert!(error.to_string().contains("redis-cluster://"), "{error}");
    }
}
