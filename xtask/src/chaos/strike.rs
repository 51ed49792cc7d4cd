//! Injects a fault, and removes it again.

use crate::{
    chaos::{
        database::InjectedFault,
        links::Links,
        loss::{self, Sizes},
        plan::{Blow, Fault, Harm, Loss, Target},
        proxy::{Proxy, Traffic},
        sql::Session,
    },
    fleet::Fleet,
    mesh::Mesh,
    replicas::replicated,
    servers::Server,
};
use stampede_vocab::Process;
use std::time::Duration;

/// The time whose writes Redis loses.
const LOST: Duration = Duration::from_secs(2);
/// Delay of a slow link, in each direction.
const SLOW_BY: Duration = Duration::from_millis(150);

/// The targets of faults.
pub struct Stage<'a> {
    pub mesh: &'a Mesh<'a>,
    pub links: &'a Links,
}

impl Stage<'_> {
    /// A session with the database, past all proxies.
    pub fn session(&self) -> anyhow::Result<Session> {
        let (folder, socket) = self.mesh.servers.socket();
        Session::open(&folder, &socket)
    }

    /// Waits until all processes are ready.
    pub fn wait_ready(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        replicated().try_for_each(|process| self.mesh.wait_ready(fleet, process))
    }

    fn wait_back(&self, fleet: &mut Fleet, target: Target) -> anyhow::Result<()> {
        match target {
            Target::One(process) | Target::All(process) => self.mesh.wait_ready(fleet, process),
            Target::Server(server) => self.mesh.servers.wait_ready(fleet, server),
        }
    }

    /// Returns the names of the targeted children.
    fn names(&self, target: Target) -> Vec<String> {
        let replicas = |process: Process| self.mesh.layout.of(process).map(|instance| instance.name.clone());
        match target {
            Target::All(Process::Sandbox) | Target::One(Process::Sandbox) => vec![Process::Sandbox.to_string()],
            Target::One(process) => replicas(process).take(1).collect(),
            Target::All(process) => replicas(process).collect(),
            Target::Server(server) => vec![self.mesh.servers.name(server).to_owned()],
        }
    }
}

/// An injected fault.
pub struct Strike<'s> {
    stage: &'s Stage<'s>,
    cure: Cure<'s>,
}

/// The removal of a fault.
enum Cure<'s> {
    /// Killed children are started again.
    Start(Target),
    /// Frozen children continue.
    Thaw(Target),
    /// The children are restarting already.
    Wait(Target),
    Database(InjectedFault),
    Link(&'s [Proxy]),
}

impl<'s> Strike<'s> {
    pub fn begin(stage: &'s Stage<'s>, fleet: &mut Fleet, fault: Fault) -> anyhow::Result<Self> {
        let cure = match fault {
            Fault::Blow(target, blow) => hit(stage, fleet, target, blow)?,
            Fault::RedisLoses(loss) => lose(stage, fleet, loss)?,
            Fault::Database(fault) => Cure::Database(InjectedFault::begin(stage.session()?, fault)?),
            Fault::Link(link, harm) => {
                let proxies = stage.links.of(link)?;
                let traffic = match harm {
                    Harm::Slow => Traffic::Slow(SLOW_BY),
                    Harm::Cut => Traffic::Cut,
                    Harm::Refused => Traffic::Refused,
                };
                proxies.iter().for_each(|proxy| proxy.set(traffic));
                Cure::Link(proxies)
            }
        };
        Ok(Self { stage, cure })
    }

    /// Removes it, and waits until the targets are ready. Returns whether anything has met it, if that can be told.
    pub fn end(self, fleet: &mut Fleet) -> anyhow::Result<Option<bool>> {
        let Self { stage, cure } = self;
        match cure {
            Cure::Start(target) => {
                stage.names(target).iter().try_for_each(|name| fleet.start_again(name))?;
                stage.wait_back(fleet, target)?;
            }
            Cure::Thaw(target) => {
                stage.names(target).iter().try_for_each(|name| fleet.thaw(name))?;
                stage.wait_back(fleet, target)?;
            }
            Cure::Wait(target) => stage.wait_back(fleet, target)?,
            Cure::Database(fault) => return fault.end(),
            Cure::Link(proxies) => {
                let has_struck = proxies.iter().any(Proxy::has_struck);
                proxies.iter().for_each(|proxy| proxy.set(Traffic::Flows));
                return Ok(Some(has_struck));
            }
        }
        Ok(None)
    }
}

fn hit<'s>(stage: &Stage<'_>, fleet: &mut Fleet, target: Target, blow: Blow) -> anyhow::Result<Cure<'s>> {
    let names = stage.names(target);
    Ok(match blow {
        Blow::Kill => {
            names.iter().try_for_each(|name| fleet.kill(name))?;
            Cure::Start(target)
        }
        Blow::Freeze => {
            names.iter().try_for_each(|name| fleet.freeze(name))?;
            Cure::Thaw(target)
        }
        Blow::Restart => {
            fleet.terminate(&names)?;
            names.iter().try_for_each(|name| fleet.start_again(name))?;
            Cure::Wait(target)
        }
    })
}

/// Kills Redis, and removes the data that it is to lose from its files.
fn lose<'s>(stage: &Stage<'_>, fleet: &mut Fleet, loss: Loss) -> anyhow::Result<Cure<'s>> {
    let (name, folder) = (stage.mesh.servers.name(Server::Redis), stage.mesh.servers.folder(Server::Redis));
    match loss {
        Loss::Everything => {
            fleet.kill(name)?;
            loss::empty(&folder)?;
        }
        Loss::LastSeconds => {
            let sizes = Sizes::of(&folder)?;
            fleet.stay(LOST)?;
            fleet.kill(name)?;
            anyhow::ensure!(sizes.restore()?, "Redis has stored nothing in {LOST:?} of a sale");
        }
    }
    Ok(Cure::Start(Target::Server(Server::Redis)))
}
