//! Direct connections of a test to Redis, past the processes: to one server, or to a cluster.

use ::redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use anyhow::Result;
use std::time::Duration;

/// Scheme of the URL of a cluster.
const CLUSTER: &str = "redis-cluster://";
/// Longest wait for a connection or for an answer: other tests keep the servers busy.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection of an administrator. In a cluster a command runs on the master that has its keys, `DEL` on each that
/// has one, `KEYS` on all; a transaction needs all of its keys in one slot, as those of one event are.
#[derive(Clone)]
pub struct AdminRedis(Link);

#[derive(Clone)]
enum Link {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl AdminRedis {
    /// Connects to `redis://host:port[/database]` or `redis-cluster://host:port[,host:port...]`, both with or
    /// without a login. Fails if nobody answers.
    pub async fn connect(url: &str) -> Result<Self> {
        let link = match url.strip_prefix(CLUSTER) {
            Some(nodes) => {
                // A login before the first node is that of all.
                let (login, nodes) = nodes.split_at(nodes.rfind('@').map_or(0, |at| at + 1));
                let client = ClusterClient::builder(nodes.split(',').map(|node| format!("redis://{login}{node}")))
                    .connection_timeout(DEADLINE)
                    .response_timeout(DEADLINE)
                    .build()?;
                Link::Cluster(client.get_async_connection().await?)
            }
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(DEADLINE))
                    .set_response_timeout(Some(DEADLINE));
                Link::Server(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
            }
        };
        Ok(Self(link))
    }

    /// Deletes every key whose name begins with `prefix`, which must have no special characters of patterns.
    pub async fn delete_all(&mut self, prefix: &str) -> Result<()> {
        let keys: Vec<String> = self.keys(format!("{prefix}*")).await?;
        if !keys.is_empty() {
            let () = self.del(keys).await?;
        }
        Ok(())
    }
}

impl ConnectionLike for AdminRedis {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Link::Server(conn) => conn.req_packed_command(cmd),
            Link::Cluster(conn) => conn.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Link::Server(conn) => conn.req_packed_commands(pipeline, offset, count),
            Link::Cluster(conn) => conn.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Link::Server(conn) => conn.get_db(),
            Link::Cluster(conn) => conn.get_db(),
        }
    }
}
