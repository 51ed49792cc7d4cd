//! How a Redis Cluster is started for tests: three masters, each with a replica.

use crate::{
    fleet::Fleet,
    identity::Identity,
    ports::Ports,
    probe,
    servers::{PASSWORD, READY_TIMEOUT, redis},
    shell,
    ui::Step,
};
use anyhow::Context;
use stampede_vocab::REDIS_USER;
use std::{path::Path, process::Command};

/// The slots of each master, first and last.
const SLOTS: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

#[derive(Debug, Clone)]
pub struct Cluster {
    /// The masters, then their replicas in the same order.
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts every node, joins them, and returns when each sees a whole cluster. Its ports are from `first` on.
    pub fn start(
        fleet: &mut Fleet,
        data: &Path,
        identity: Identity,
        ports: &mut Ports,
        first: u16,
    ) -> anyhow::Result<Self> {
        let step = Step::begin("cluster", "starting");
        let nodes = (1..=2 * SLOTS.len()).map(|number| Node::pick(number, ports, first));
        let cluster = Self { nodes: nodes.collect::<anyhow::Result<_>>()? };
        for node in &cluster.nodes {
            fleet.start(redis::launch_node(&node.name, data, identity, node.port, node.bus_port)?)?;
        }
        cluster.wait(fleet, |node| probe::redis(node.port))?;
        cluster.join(fleet)?;
        step.done(&format!("redis-cluster://127.0.0.1:{} and five nodes more", cluster.nodes[0].port));
        Ok(cluster)
    }

    /// Gives out the slots, lets every node meet every other, and then each replica follow its master.
    fn join(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let (masters, replicas) = self.nodes.split_at(SLOTS.len());
        for (master, (from, to)) in masters.iter().zip(SLOTS) {
            master.tell(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])?;
        }
        for (node, epoch) in self.nodes.iter().zip(1_u64..) {
            node.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()])?;
        }
        let (port, bus_port) = (self.nodes[0].port.to_string(), self.nodes[0].bus_port.to_string());
        for node in &self.nodes[1..] {
            node.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port])?;
        }
        self.wait(fleet, |node| node.has_met(self.nodes.len()))?;
        for (replica, master) in replicas.iter().zip(masters) {
            replica.tell(&["CLUSTER", "REPLICATE", &master.ask(&["CLUSTER", "MYID"])?])?;
        }
        self.wait(fleet, Node::sees_all)?;
        self.wait(fleet, |node| masters.contains(node) || node.is_linked())
    }

    /// Waits until it is so for every node.
    fn wait(&self, fleet: &mut Fleet, is_so: impl Fn(&Node) -> bool) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(|node| fleet.wait_ready(&node.name, READY_TIMEOUT, || is_so(node)))
    }

    /// All nodes, for the processes.
    pub fn url(&self) -> String {
        format!("redis-cluster://{REDIS_USER}:{PASSWORD}@{}", self.addresses())
    }

    /// The same for who may do everything.
    pub fn admin_url(&self) -> String {
        format!("redis-cluster://{}", self.addresses())
    }

    fn addresses(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        addresses.join(",")
    }
}

/// One server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    name: String,
    port: u16,
    /// Where the other nodes talk to it.
    bus_port: u16,
}

impl Node {
    fn pick(number: usize, ports: &mut Ports, first: u16) -> anyhow::Result<Self> {
        let name = format!("redis-{number}");
        let (port, bus_port) = (ports.pick(&name, None, first)?, ports.pick(&name, None, first)?);
        Ok(Self { name, port, bus_port })
    }

    /// Returns the answer to a command. Fails if that is an error.
    fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        let client = shell::find_program("redis-cli").context("there is no redis-cli, which comes with Redis")?;
        let mut asked = Command::new(client);
        asked.args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()]).args(command);
        Ok(shell::quiet(&mut asked)?.trim_end().to_owned())
    }

    fn tell(&self, command: &[&str]) -> anyhow::Result<()> {
        self.ask(command).map(drop)
    }

    /// Whether it knows all of so many nodes, itself one of them.
    fn has_met(&self, count: usize) -> bool {
        self.ask(&["CLUSTER", "NODES"]).is_ok_and(|members| are_met(&members, count))
    }

    /// Whether every slot has a master that it can reach.
    fn sees_all(&self) -> bool {
        self.says(&["CLUSTER", "INFO"], &["cluster_state:ok", "cluster_slots_ok:16384"])
    }

    /// Whether this replica follows its master.
    fn is_linked(&self) -> bool {
        self.says(&["INFO", "replication"], &["master_link_status:up"])
    }

    /// Whether all of these lines are in the answer to a command.
    fn says(&self, command: &[&str], lines: &[&str]) -> bool {
        let Ok(answer) = self.ask(command) else { return false };
        lines.iter().all(|line| answer.lines().any(|said| said.trim_end() == *line))
    }
}

/// Whether the answer to CLUSTER NODES lists so many nodes, none of them in handshake.
fn are_met(members: &str, count: usize) -> bool {
    members.lines().count() == count && !members.contains("handshake")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u16) -> Node {
        Node { name: format!("redis-{number}"), port: 7_000 + number, bus_port: 17_000 + number }
    }

    #[test]
    fn every_slot_has_one_master() {
        let slots: Vec<_> = SLOTS.iter().flat_map(|(first, last)| *first..=*last).collect();
        assert_eq!(slots, (0..16_384).collect::<Vec<_>>());
    }

    #[test]
    fn its_url_names_every_node_and_has_the_password_for_the_processes_alone() {
        let cluster = Cluster { nodes: vec![node(1), node(2)] };
        assert_eq!(cluster.admin_url(), "redis-cluster://127.0.0.1:7001,127.0.0.1:7002");
        assert_eq!(cluster.url(), "redis-cluster://stampede:stampede@127.0.0.1:7001,127.0.0.1:7002");
    }

    #[test]
    fn a_node_has_met_the_others_once_it_knows_all_by_their_names() {
        let two = "a1 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460\n\
                   b2 127.0.0.1:7002@17002 master - 0 1 2 connected 5461-10922";
        assert!(are_met(two, 2) && !are_met(two, 3));
        assert!(!are_met(&two.replace(" master -", " handshake -"), 2));
    }
}
