//! The proxies of a run: one on each way from a process to a server, and one in front of the gateways for the crowd.

use anyhow::Context;
use stampede_vocab::{Process, Service};

use crate::chaos::plan::{Far, Link};
use crate::chaos::proxy::{Proxy, Traffic};
use crate::mesh::{Layout, Tuning};
use crate::ports::Ports;
use crate::servers::{Door, Server, ServerPorts};

/// Kafka's further doors are from here on.
const FIRST_DOOR: u16 = 7_500;

/// Settings by which a round does not wait long for what a fault has left behind. Others are as they are by default: a
/// commit may be on its way for as long as a fault lasts.
const ASK_AGAIN_MS: u64 = 5_000;
const PROVIDER_TIMEOUT_MS: u64 = 500;
/// What the provider does to good cards by itself, all through a round. None is declined: the crowd knows what each of
/// its cards leads to.
const PROVIDER_FAULTS: &str = "delay=10,decline=0,timeout-before=2,timeout-after=2,fail=2,pending=1,\
    duplicate-notice=10,late-notice=5,reorder-notice=10";

/// How long its pending charges and late notices take: well within the time to pay, since the crowd expects the goods
/// for a good card.
const PROVIDER_LATE_MS: u64 = 1_500;

/// All proxies.
pub struct Links {
    ways: Vec<(Link, Proxy)>,
    entrance: Proxy,
    tuning: Tuning,
}

impl Links {
    /// Opens them before the servers and processes run. Kafka names its own address to its clients, so it gets a door
    /// for each process, which names that of the proxy. The seed decides what the provider does by itself.
    pub fn open(ports: &mut Ports, servers: &mut ServerPorts, layout: &Layout, seed: u64) -> anyhow::Result<Self> {
        let entrance = Proxy::open(ports_of(layout, Process::Gateway))?;
        let mut links = Self { ways: Vec::new(), entrance, tuning: troubled(seed) };
        for link in Link::all() {
            links.add(link, ports, servers, layout)?;
        }
        Ok(links)
    }

    fn add(&mut self, link: Link, ports: &mut Ports, servers: &mut ServerPorts, layout: &Layout) -> anyhow::Result<()> {
        let far = match link.to {
            Far::Server(server) => vec![servers.of(server)],
            Far::Process(process) => ports_of(layout, process),
        };
        let known = *far.first().with_context(|| format!("{} leads nowhere", link.to))?;
        let proxy = if link.to == Far::Server(Server::Kafka) {
            let port = ports.pick("a door of Kafka", None, FIRST_DOOR)?;
            let proxy = Proxy::open(vec![port])?;
            servers.add_door(Door { name: link.from.name().to_uppercase(), port, leads_by: proxy.port() });
            proxy
        } else {
            Proxy::open(far)?
        };
        self.tuning = std::mem::take(&mut self.tuning).lead(link.from, known, proxy.port());
        self.ways.push((link, proxy));
        Ok(())
    }

    /// The proxy on a way.
    pub fn of(&self, link: Link) -> anyhow::Result<&Proxy> {
        let found = self.ways.iter().find(|(way, _)| *way == link);
        found.map(|(_, proxy)| proxy).with_context(|| format!("no proxy is between {} and {}", link.from, link.to))
    }

    /// Lets everything flow, whatever was the matter.
    pub fn heal(&self) {
        self.ways.iter().for_each(|(_, proxy)| proxy.set(Traffic::Flows));
    }

    /// The way to the gateways, for the crowd.
    pub fn gateway_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.entrance.port())
    }

    /// Leads every process by its proxies.
    pub fn tuning(&self) -> Tuning {
        self.tuning.clone()
    }
}

fn ports_of(layout: &Layout, process: Process) -> Vec<u16> {
    match process {
        Process::Sandbox => vec![layout.sandbox()],
        Process::Service(_) | Process::Gateway => layout.of(process).map(|instance| instance.port).collect(),
    }
}

fn quick() -> Tuning {
    Tuning::default()
        .set(Service::Order, "STAMPEDE_ORDER_ASK_AGAIN_MS", ASK_AGAIN_MS)
        .set(Service::Order, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", PROVIDER_TIMEOUT_MS)
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", PROVIDER_TIMEOUT_MS)
}

/// The same with a provider that fails now and then, in the same way for the same seed.
fn troubled(seed: u64) -> Tuning {
    quick()
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_MODE", "seeded")
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SEED", seed)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_FAULTS", PROVIDER_FAULTS)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", PROVIDER_LATE_MS)
}
