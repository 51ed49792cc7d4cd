//! Puts a fault in, and takes it out again.

use std::time::Duration;

use stampede_vocab::Process;

use crate::chaos::links::Links;
use crate::chaos::loss::{self, Sizes};
use crate::chaos::plan::{Blow, Fault, Harm, Loss, Target};
use crate::chaos::proxy::{Proxy, Traffic};
use crate::chaos::sql::Session;
use crate::chaos::trouble::UnderWay;
use crate::fleet::Fleet;
use crate::mesh::Mesh;
use crate::replicas::replicated;
use crate::servers::Server;

/// How much of what Redis has stored is cut off.
const LOST: Duration = Duration::from_secs(2);
/// How late all arrives on a slow link, in each direction.
const SLOW_BY: Duration = Duration::from_millis(150);

/// What can be struck.
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

    /// The names of the children that are meant.
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

/// A fault that is in.
pub struct Strike<'s> {
    stage: &'s Stage<'s>,
    cure: Cure<'s>,
}

/// What takes a fault out.
enum Cure<'s> {
    /// Who was ended is started again.
    Start(Target),
    /// Who stands still goes on.
    Thaw(Target),
    /// It is on its way back.
    Wait(Target),
    Database(UnderWay),
    Link(&'s Proxy),
}

impl<'s> Strike<'s> {
    /// Puts a fault in.
    pub fn begin(stage: &'s Stage<'s>, fleet: &mut Fleet, fault: Fault) -> anyhow::Result<Self> {
        let cure = match fault {
            Fault::Blow(target, blow) => hit(stage, fleet, target, blow)?,
            Fault::RedisLoses(loss) => lose(stage, fleet, loss)?,
            Fault::Database(trouble) => Cure::Database(UnderWay::begin(stage.session()?, trouble)?),
            Fault::Link(link, harm) => {
                let proxy = stage.links.of(link)?;
                proxy.set(match harm {
                    Harm::Slow => Traffic::Slow(SLOW_BY),
                    Harm::Cut => Traffic::Cut,
                    Harm::Refused => Traffic::Refused,
                });
                Cure::Link(proxy)
            }
        };
        Ok(Self { stage, cure })
    }

    /// Takes it out, and waits until who was struck is back.
    pub fn end(self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let Self { stage, cure } = self;
        match cure {
            Cure::Start(target) => {
                stage.names(target).iter().try_for_each(|name| fleet.start_again(name))?;
                stage.wait_back(fleet, target)
            }
            Cure::Thaw(target) => {
                stage.names(target).iter().try_for_each(|name| fleet.thaw(name))?;
                stage.wait_back(fleet, target)
            }
            Cure::Wait(target) => stage.wait_back(fleet, target),
            Cure::Database(trouble) => trouble.end(),
            Cure::Link(proxy) => {
                proxy.set(Traffic::Flows);
                Ok(())
            }
        }
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

/// Kills Redis, and takes from its files what it is to lose.
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
