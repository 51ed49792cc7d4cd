//! The processes of a mesh, and their ports.

use crate::{
    cli::PortArgs,
    ports::Ports,
    replicas::{Replicas, replicated},
};
use stampede_vocab::{ADMIN_PORT_OFFSET, Process};

/// The replicas of a service are this far apart.
const REPLICA_OFFSET: u16 = 10;

/// One process of the mesh and its ports.
#[derive(Debug, Clone)]
pub struct Instance {
    pub process: Process,
    /// Its own name: that of the process, with a number from the second replica on.
    pub name: String,
    /// Its service port.
    pub port: u16,
    /// Its admin port, for health and metrics.
    pub admin_port: u16,
}

/// The ports of every process of a mesh. Known before any of them starts, so that each is started with the addresses of
/// its peers.
#[derive(Debug, Clone)]
pub struct Layout {
    instances: Vec<Instance>,
    sandbox: u16,
}

impl Layout {
    pub fn pick(ports: &mut Ports, requested: &PortArgs, replicas: &Replicas) -> anyhow::Result<Self> {
        let mut instances = Vec::new();
        for process in replicated() {
            for replica in 0..replicas.of(process) {
                instances.push(pick_instance(ports, requested, process, replica)?);
            }
        }
        Ok(Self { instances, sandbox: ports.pick("the payment sandbox", None, Process::Sandbox.port())? })
    }

    /// The replicas of a process.
    pub fn of(&self, process: impl Into<Process>) -> impl Iterator<Item = &Instance> {
        let process = process.into();
        self.instances.iter().filter(move |instance| instance.process == process)
    }

    /// The URLs of a process, one a replica.
    pub fn urls(&self, process: impl Into<Process>) -> String {
        let urls = self.of(process).map(|instance| format!("http://127.0.0.1:{}", instance.port));
        urls.collect::<Vec<_>>().join(",")
    }

    /// The first gateway's URL, as a buyer would use it.
    pub fn gateway_url(&self) -> String {
        let gateway = self.of(Process::Gateway).next().expect("there is at least one process of each service");
        format!("http://127.0.0.1:{}", gateway.port)
    }

    /// The payment sandbox's port.
    pub fn sandbox(&self) -> u16 {
        self.sandbox
    }

    /// The payment sandbox's URL.
    pub fn provider_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.sandbox)
    }

    /// Returns a line for each process: its name, its service port, its admin port.
    pub fn lines(&self) -> Vec<String> {
        let line = |one: &Instance| {
            format!("{:<12} http://127.0.0.1:{:<6} admin http://127.0.0.1:{}", one.name, one.port, one.admin_port)
        };
        self.instances.iter().map(line).collect()
    }
}

fn pick_instance(
    ports: &mut Ports,
    requested: &PortArgs,
    process: Process,
    replica: usize,
) -> anyhow::Result<Instance> {
    let shift = REPLICA_OFFSET * u16::try_from(replica).expect("the number of replicas is small");
    let requested = if process == Process::Gateway && replica == 0 { requested.gateway_port } else { None };
    let name = if replica == 0 { process.to_string() } else { format!("{process}-{}", replica + 1) };
    let port = ports.pick(process.name(), requested, process.port() + shift)?;
    let admin_port = port.saturating_add(ADMIN_PORT_OFFSET);
    let admin_port = ports.pick(&format!("the admin side of {process}"), None, admin_port)?;
    Ok(Instance { process, name, port, admin_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(replicas: &str) -> Layout {
        let replicas = replicas.parse().expect("well formed");
        Layout::pick(&mut Ports::default(), &PortArgs::default(), &replicas).expect("ports are free")
    }

    #[test]
    fn every_replica_has_ports_and_a_name_of_its_own() {
        let layout = layout("order=2,event=3");
        assert_eq!(layout.urls(stampede_vocab::Service::Order).split(',').count(), 2);
        let mut ports: Vec<u16> = layout.instances.iter().flat_map(|one| [one.port, one.admin_port]).collect();
        let mut names: Vec<&str> = layout.instances.iter().map(|one| one.name.as_str()).collect();
        let counts = (ports.len(), names.len());
        ports.sort_unstable();
        ports.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((ports.len(), names.len()), counts);
    }
}
