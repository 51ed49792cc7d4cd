//! A Redis Cluster of a test's own: three masters, each with a replica that takes over when it is killed.

use crate::{
    eventually,
    running::{free_address, mortal},
};
use ::redis::{AsyncConnectionConfig, FromRedisValue};
use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// The slots of each master, first and last.
const SLOTS: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
/// A master is replaced if it is silent for longer, in milliseconds: soon while the cluster is made, which waits for as
/// long, and once a test has killed one.
const SOON_MS: &str = "1000";
/// The same in between: on a machine that stands still for a moment, no master is replaced that no test has killed.
const LATE_MS: &str = "15000";
/// Longest wait for the answer of a node. The default of the client is half a second.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A private cluster. It ends when it is dropped.
#[derive(Debug)]
pub struct OwnCluster {
    /// The servers that were not killed.
    nodes: Vec<Node>,
}

impl OwnCluster {
    /// Starts six servers that store nothing, and makes a cluster of them. An event is sold while the master of another
    /// one is away.
    pub async fn start() -> Result<Self> {
        let nodes = (0..2 * SLOTS.len()).map(|_| Node::launch()).collect::<Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            eventually("a node of the cluster answers", || async { node.ask::<String>(&["PING"]).await.ok() }).await;
        }
        cluster.meet().await?;
        let (masters, replicas) = cluster.nodes.split_at(SLOTS.len());
        for (replica, master) in replicas.iter().zip(masters) {
            replica.execute(&["CLUSTER", "REPLICATE", &master.id().await?]).await?;
        }
        for (node, is_replica) in cluster.nodes.iter().zip((0..).map(|index| index >= SLOTS.len())) {
            eventually("the cluster is whole", || async { node.is_in_place(is_replica).await.ok()?.then_some(()) })
                .await;
        }
        cluster.replace_silent_masters_after(LATE_MS).await?;
        Ok(cluster)
    }

    async fn replace_silent_masters_after(&self, timeout_ms: &str) -> Result<()> {
        for node in &self.nodes {
            node.execute(&["CONFIG", "SET", "cluster-node-timeout", timeout_ms]).await?;
        }
        Ok(())
    }

    /// Assigns the slots, and introduces every node to every other.
    async fn meet(&self) -> Result<()> {
        for (node, (first, last)) in self.nodes.iter().zip(SLOTS) {
            node.execute(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await?;
        }
        for (node, epoch) in self.nodes.iter().zip(1_usize..) {
            node.execute(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]).await?;
        }
        let first = &self.nodes[0];
        let (host, port) = (first.address.ip().to_string(), first.address.port().to_string());
        for node in &self.nodes[1..] {
            node.execute(&["CLUSTER", "MEET", &host, &port, &first.bus.port().to_string()]).await?;
        }
        for node in &self.nodes {
            eventually("every node knows every other", || async {
                let members = node.members().await.ok()?;
                (members.len() == self.nodes.len() && members.iter().all(Member::is_met)).then_some(())
            })
            .await;
        }
        Ok(())
    }

    /// `redis-cluster://host:port,...` with every node that lives.
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| node.address.to_string()).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// Returns the address of the master that has this key, by the view of one of the nodes.
    pub async fn master_of(&self, key: &str) -> Result<SocketAddr> {
        let slot = self.slot_of(key).await?;
        Ok(self.nodes[0].master_of(slot).await?.address)
    }

    /// Waits until the replica of the master that has this key is in sync with it.
    pub async fn replicated(&self, key: &str) -> Result<()> {
        let master = self.node(self.master_of(key).await?)?;
        eventually("the replica has what its master has", || async {
            let info: String = master.ask(&["INFO", "replication"]).await.ok()?;
            let written = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"))?;
            let copied = format!("offset={written},");
            info.lines().any(|line| line.starts_with("slave0:") && line.contains(&copied)).then_some(())
        })
        .await;
        Ok(())
    }

    /// Kills the master that has this key, as a power cut does, and waits until a replica has taken over. Writes that
    /// the replica had not copied yet are lost.
    pub async fn kill_master_of(&mut self, key: &str) -> Result<()> {
        let slot = self.slot_of(key).await?;
        let killed = self.master_of(key).await?;
        let at = self.nodes.iter().position(|node| node.address == killed).context("the master lives")?;
        drop(self.nodes.remove(at));
        self.replace_silent_masters_after(SOON_MS).await?;
        for node in &self.nodes {
            eventually("a replica has taken over", || async {
                let master = node.master_of(slot).await.ok()?;
                (master.address != killed && node.is_ok().await.ok()?).then_some(())
            })
            .await;
        }
        Ok(())
    }

    /// Freezes the master that has this key, as a paused machine would: it accepts connections, and answers nobody. It
    /// is not replaced for fifteen seconds.
    pub async fn freeze_master_of(&self, key: &str) -> Result<()> {
        let frozen = self.master_of(key).await?;
        self.node(frozen)?.signal(Signal::SIGSTOP)
    }

    /// Has every node go on that was frozen.
    pub fn thaw(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.signal(Signal::SIGCONT))
    }

    /// Moves the slot of this key, with every key in it, to another master, as an operator does.
    pub async fn move_slot_of(&self, key: &str) -> Result<()> {
        let slot = self.slot_of(key).await?;
        let members = self.nodes[0].members().await?;
        let masters: Vec<_> = members.iter().filter(|member| !member.slots.is_empty()).collect();
        let (from, to) = (
            masters.iter().find(|member| member.has(slot)).context("a master has the slot")?,
            masters.iter().find(|member| !member.has(slot)).context("another master does not")?,
        );
        let (source, target) = (self.node(from.address)?, self.node(to.address)?);
        let number = slot.to_string();
        target.execute(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &from.id]).await?;
        source.execute(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &to.id]).await?;
        loop {
            let keys: Vec<String> = source.ask(&["CLUSTER", "GETKEYSINSLOT", &number, "1"]).await?;
            let Some(key) = keys.first() else { break };
            let (host, port) = (to.address.ip().to_string(), to.address.port().to_string());
            source.execute(&["MIGRATE", &host, &port, key, "0", "5000"]).await?;
        }
        // The new owner first, so that the slot has an owner at any time.
        for master in [to, from].into_iter().chain(masters.iter().filter(|member| **member != *to && **member != *from))
        {
            self.node(master.address)?.execute(&["CLUSTER", "SETSLOT", &number, "NODE", &to.id]).await?;
        }
        Ok(())
    }

    async fn slot_of(&self, key: &str) -> Result<u16> {
        self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).await
    }

    fn node(&self, address: SocketAddr) -> Result<&Node> {
        self.nodes.iter().find(|node| node.address == address).with_context(|| format!("no node at {address}"))
    }
}

/// One server of the cluster.
#[derive(Debug)]
struct Node {
    child: Child,
    address: SocketAddr,
    /// The port of its cluster bus.
    bus: SocketAddr,
    _folder: TempDir,
}

impl Node {
    fn launch() -> Result<Self> {
        let (address, bus, folder) = (free_address()?, free_address()?, TempDir::new()?);
        let mut command = mortal("redis-server");
        command.arg("--dir").arg(folder.path()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &address.port().to_string(), "--cluster-port", &bus.port().to_string()]);
        command.args(["--cluster-enabled", "yes", "--cluster-node-timeout", SOON_MS]);
        command.args(["--cluster-announce-ip", "127.0.0.1"]);
        // The other masters go on without one of them, and a replica may take over however long it lost its master.
        command.args(["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]);
        command.args(["--repl-diskless-sync-delay", "0"]);
        let child = command.stdout(Stdio::null()).spawn().context("redis-server cannot be started")?;
        Ok(Self { child, address, bus, _folder: folder })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let client = ::redis::Client::open(format!("redis://{}", self.address))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWERS_WITHIN))
            .set_response_timeout(Some(ANSWERS_WITHIN));
        let mut conn = client.get_multiplexed_async_connection_with_config(&config).await?;
        let (name, args) = command.split_first().context("a command has a name")?;
        Ok(::redis::cmd(name).arg(args).query_async(&mut conn).await?)
    }

    /// Runs a command. Fails unless it is answered with OK.
    async fn execute(&self, command: &[&str]) -> Result<()> {
        let answer: String = self.ask(command).await.with_context(|| command.join(" "))?;
        ensure!(answer == "OK" || answer == "NOKEY", "{}: {answer}", command.join(" "));
        Ok(())
    }

    async fn id(&self) -> Result<String> {
        self.ask(&["CLUSTER", "MYID"]).await
    }

    /// Returns every member that this node knows.
    async fn members(&self) -> Result<Vec<Member>> {
        let nodes: String = self.ask(&["CLUSTER", "NODES"]).await?;
        nodes.lines().map(|line| Member::parse(line).with_context(|| format!("no member: {line}"))).collect()
    }

    async fn master_of(&self, slot: u16) -> Result<Member> {
        self.members().await?.into_iter().find(|member| member.has(slot)).context("a master has the slot")
    }

    async fn is_ok(&self) -> Result<bool> {
        let info: String = self.ask(&["CLUSTER", "INFO"]).await?;
        Ok(info.contains("cluster_state:ok"))
    }

    /// Whether it has its role, its link to its master or replica is up, and it sees a whole cluster.
    async fn is_in_place(&self, is_replica: bool) -> Result<bool> {
        let info: String = self.ask(&["INFO", "replication"]).await?;
        let linked = if is_replica { "master_link_status:up" } else { "state=online" };
        Ok(info.contains(linked) && self.is_ok().await?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of CLUSTER NODES.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    id: String,
    address: SocketAddr,
    flags: String,
    /// First and last of each range; a replica has none.
    slots: Vec<(u16, u16)>,
}

impl Member {
    /// Parses `id host:port@bus flags master ping pong epoch link slots...`; a slot that is moving is skipped.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [id, address, flags, _master, _ping, _pong, _epoch, _link, slots @ ..] = &words[..] else { return None };
        let range = |words: &&str| {
            let (first, last) = words.split_once('-').unwrap_or((*words, *words));
            Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
        };
        Some(Self {
            id: (*id).to_owned(),
            address: address.split('@').next()?.parse().ok()?,
            flags: (*flags).to_owned(),
            slots: slots.iter().filter(|words| !words.starts_with('[')).map(range).collect::<Option<_>>()?,
        })
    }

    fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    fn is_met(&self) -> bool {
        !self.flags.contains("handshake")
    }
}
