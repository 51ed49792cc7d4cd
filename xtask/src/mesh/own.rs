//! A mesh for one piece of work: started on servers of its own, and stopped with them after it.

use crate::{
    cli::{Database, PortArgs, Profile},
    fleet::Fleet,
    mesh::{Layout, Mesh, Tuning, build},
    ports::Ports,
    replicas::Replicas,
    secrets::Secrets,
    servers::{ServerPorts, Servers},
    setup,
    workspace::{Workspace, remove_directory},
};
use std::path::Path;

/// The build and the settings of a mesh that has servers of its own.
pub struct Own<'a> {
    /// The directory of the run. Files of an earlier run are removed.
    pub run: &'a Path,
    pub database: Database,
    pub profile: Profile,
    pub replicas: Replicas,
    /// As in [`Mesh`].
    pub pay_window_ms: Option<u64>,
}

impl Own<'_> {
    /// Starts servers and mesh, does the work on them, and stops everything, also after a failure.
    pub fn with<T>(
        self,
        workspace: &Workspace,
        work: impl FnOnce(&Mesh<'_>, &mut Fleet) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        setup::servers(workspace, self.database)?;
        let program = build(workspace, self.profile)?;
        remove_directory(self.run)?;
        let mut fleet = Fleet::open(self.run)?;
        let requested = PortArgs::default();
        let mut ports = Ports::reserving(&requested)?;
        let server_ports = ServerPorts::preferred(&mut ports, &requested)?;
        let layout = Layout::pick(&mut ports, &requested, &self.replicas)?;
        let secrets = Secrets::of_run(self.run)?;
        let servers = Servers::start(&mut fleet, workspace, self.database, server_ports)?;
        let mesh = Mesh {
            program,
            servers: &servers,
            layout: &layout,
            secrets: &secrets,
            pay_window_ms: self.pay_window_ms,
            tuning: Tuning::default(),
        };
        mesh.prepare()?;
        mesh.start(&mut fleet)?;
        let outcome = work(&mesh, &mut fleet)?;
        fleet.stop();
        Ok(outcome)
    }
}
