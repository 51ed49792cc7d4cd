//! The proxies of a run: on each link between two processes and from a process to a server, one for each address of the
//! far end; and one in front of the gateways for the crowd.

use crate::{
    chaos::{
        plan::{Far, Link},
        proxy::{Proxy, Traffic},
    },
    mesh::{Layout, Tuning},
    ports::Ports,
    servers::{Listener, Server, ServerPorts},
};
use anyhow::Context;
use stampede_vocab::{Process, Service};
use std::net::Ipv4Addr;

/// First port that is tried for Kafka's further listeners.
const FIRST_LISTENER: u16 = 7_500;

/// Settings that shorten the recovery after a fault. Others have their defaults: a commit may be on its way for as long
/// as a fault lasts.
const ASK_AGAIN_MS: u64 = 5_000;
const PROVIDER_TIMEOUT_MS: u64 = 500;
/// Faults of the provider with good cards, all through a round. None is declined: the crowd knows the outcome of each
/// of its cards. No refund fails, since an operator has to settle that; the audit waits for those that are pending.
const PROVIDER_FAULTS: &str = "delay=10,decline=0,timeout-before=2,timeout-after=2,fail=2,pending=1,pending-refund=5,\
    duplicate-notice=10,late-notice=5,reorder-notice=10";

/// Delay of its pending charges and refunds, and of its late notices: well within the payment window, since the crowd
/// expects the goods for a good card.
const PROVIDER_LATE_MS: u64 = 1_500;

/// All proxies.
pub struct Links {
    /// Those of a link: one for each address that its process has of the far end.
    proxies: Vec<(Link, Vec<Proxy>)>,
    entrance: Proxy,
    tuning: Tuning,
}

impl Links {
    /// Opens them before the servers and processes run. Kafka returns its own address to its clients, so it gets a
    /// listener for each process, which advertises the proxy. The seed decides the provider's own faults.
    pub fn open(ports: &mut Ports, servers: &mut ServerPorts, layout: &Layout, seed: u64) -> anyhow::Result<Self> {
        let entrance = Proxy::open(ports_of(layout, Process::Gateway))?;
        let mut links = Self { proxies: Vec::new(), entrance, tuning: with_provider_faults(seed) };
        for link in Link::all() {
            links.add(link, ports, servers, layout)?;
        }
        Ok(links)
    }

    fn add(&mut self, link: Link, ports: &mut Ports, servers: &mut ServerPorts, layout: &Layout) -> anyhow::Result<()> {
        let mut proxies = Vec::new();
        for behind in addresses(link.to, servers, layout) {
            let known = *behind.first().with_context(|| format!("{} leads nowhere", link.to))?;
            let proxy = if link.to == Far::Server(Server::Kafka) {
                open_to_kafka(link.from, ports, servers)?
            } else {
                Proxy::open(behind)?
            };
            self.tuning = std::mem::take(&mut self.tuning).lead(link.from, known, proxy.port());
            proxies.push(proxy);
        }
        self.proxies.push((link, proxies));
        Ok(())
    }

    /// Returns the proxies of a link, which are struck together.
    pub fn of(&self, link: Link) -> anyhow::Result<&[Proxy]> {
        let found = self.proxies.iter().find(|(of, _)| *of == link);
        let proxies = found.map(|(_, proxies)| proxies.as_slice());
        proxies.with_context(|| format!("no proxy is between {} and {}", link.from, link.to))
    }

    /// Ends all faults of the links.
    pub fn heal(&self) {
        self.proxies.iter().flat_map(|(_, proxies)| proxies).for_each(|proxy| proxy.set(Traffic::Flows));
    }

    /// Returns the URL of the gateways, through a proxy, for the crowd.
    pub fn gateway_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.entrance.port())
    }

    /// Makes every process connect through its proxies.
    pub fn tuning(&self) -> Tuning {
        self.tuning.clone()
    }
}

/// The addresses that a process has of the far end of a link, each with the ports that are behind it.
fn addresses(to: Far, servers: &ServerPorts, layout: &Layout) -> Vec<Vec<u16>> {
    match to {
        Far::Server(server) => vec![vec![servers.of(server)]],
        // The provider has one URL, that of the first: its notices may go to any.
        Far::Process(Process::Gateway) => vec![ports_of(layout, Process::Gateway)],
        // A caller probes each replica, and chooses among them.
        Far::Process(process) => ports_of(layout, process).into_iter().map(|port| vec![port]).collect(),
    }
}

/// Opens a proxy in front of a listener of its own, which advertises it.
fn open_to_kafka(from: Process, ports: &mut Ports, servers: &mut ServerPorts) -> anyhow::Result<Proxy> {
    let port = ports.pick("a listener of Kafka", None, FIRST_LISTENER)?;
    let proxy = Proxy::open(vec![port])?;
    servers.add_listener(Listener {
        name: from.name().to_uppercase(),
        port,
        advertised: (Ipv4Addr::LOCALHOST, proxy.port()).into(),
    });
    Ok(proxy)
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

/// The same with a provider with random faults, which the seed decides.
fn with_provider_faults(seed: u64) -> Tuning {
    quick()
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_MODE", "seeded")
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SEED", seed)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_FAULTS", PROVIDER_FAULTS)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", PROVIDER_LATE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::PortArgs, replicas};
    use std::collections::BTreeSet;

    fn ports_in(urls: &str) -> Vec<u16> {
        urls.split(',').map(|url| url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")).collect()
    }

    #[test]
    fn each_replica_that_a_process_calls_is_behind_a_proxy_of_its_own() {
        let (mut ports, requested) = (Ports::default(), PortArgs::default());
        let mut servers = ServerPorts::preferred(&mut ports, &requested).expect("ports are free");
        let two = replicas::of_each(2).parse().expect("well formed");
        let layout = Layout::pick(&mut ports, &requested, &two).expect("ports are free");
        let links = Links::open(&mut ports, &mut servers, &layout, 1).expect("ports are free");
        for from in Process::all() {
            for peer in from.calls() {
                let link = Link { from, to: Far::Process((*peer).into()) };
                let proxies: Vec<u16> = links.of(link).expect("it is a link").iter().map(Proxy::port).collect();
                let urls = links.tuning().led(from, &layout.urls(*peer));
                assert_eq!(ports_in(&urls), proxies, "{from} to {peer}");
                assert_eq!(proxies.len(), 2, "{from} to {peer}");
            }
        }
        let all: Vec<u16> = links.proxies.iter().flat_map(|(_, proxies)| proxies).map(Proxy::port).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }
}
