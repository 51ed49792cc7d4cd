//! Which processes a mesh has, and on which port each listens.

use crate::cli::PortArgs;
use crate::ports::Ports;
use crate::replicas::{Replicas, SERVICES};

/// The admin port of a process is this far above its own.
const ADMIN_OFFSET: u16 = 100;
/// The replicas of a service are this far apart.
const REPLICA_OFFSET: u16 = 10;

/// One process of the mesh and its ports.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The service.
    pub service: &'static str,
    /// Its own name: that of the service, with a number from the second replica on.
    pub name: String,
    /// Where it serves.
    pub port: u16,
    /// Where its health and metrics are.
    pub admin_port: u16,
}

/// Where every process of a mesh listens. Known before any of them starts, so that each can be
/// told where its peers will be.
#[derive(Debug, Clone)]
pub struct Layout {
    instances: Vec<Instance>,
    sandbox: u16,
}

impl Layout {
    /// Picks the ports.
    pub fn pick(ports: &mut Ports, asked: &PortArgs, replicas: &Replicas) -> anyhow::Result<Self> {
        let mut instances = Vec::new();
        for service in SERVICES {
            for replica in 0..replicas.of(service) {
                instances.push(pick_instance(ports, asked, service, replica)?);
            }
        }
        Ok(Self { instances, sandbox: ports.pick("the payment sandbox", None, 7190)? })
    }

    /// The processes of a service.
    pub fn of(&self, service: &str) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.service == service)
    }

    /// The URLs of a service, one a replica.
    pub fn urls(&self, service: &str) -> String {
        let urls = self.of(service).map(|instance| format!("http://127.0.0.1:{}", instance.port));
        urls.collect::<Vec<_>>().join(",")
    }

    /// The first gateway's URL, as a buyer would use it.
    pub fn gateway_url(&self) -> String {
        let gateway = self.of("gateway").next().expect("there is at least one process of each service");
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

    /// A line for each process: its name, where it serves, where its health and metrics are.
    pub fn lines(&self) -> Vec<String> {
        let line = |one: &Instance| {
            format!("{:<12} http://127.0.0.1:{:<6} admin http://127.0.0.1:{}", one.name, one.port, one.admin_port)
        };
        self.instances.iter().map(line).collect()
    }
}

fn pick_instance(
    ports: &mut Ports,
    asked: &PortArgs,
    service: &'static str,
    replica: usize,
) -> anyhow::Result<Instance> {
    let shift = REPLICA_OFFSET * u16::try_from(replica).expect("the number of replicas is small");
    let asked = if service == "gateway" && replica == 0 { asked.gateway_port } else { None };
    let port = ports.pick(service, asked, default_port(service) + shift)?;
    let admin_port = ports.pick(&format!("the admin side of {service}"), None, port.saturating_add(ADMIN_OFFSET))?;
    let name = if replica == 0 { service.to_owned() } else { format!("{service}-{}", replica + 1) };
    Ok(Instance { service, name, port, admin_port })
}

/// Where a service listens unless it is told otherwise.
pub fn default_port(service: &str) -> u16 {
    match service {
        "event" => 7101,
        "coupon" => 7102,
        "inventory" => 7103,
        "order" => 7104,
        "payment" => 7105,
        _ => 8080,
    }
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
        assert_eq!(layout.urls("order").split(',').count(), 2);
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
