//! Faults of single children on purpose: kill, SIGSTOP, and restart.

use super::{Fleet, Member, signal, stop_together};
use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

impl Fleet {
    /// Kills a child with SIGKILL. Its end is no error until it is started again.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.present(name)?;
        member.is_away = true;
        signal(&member.child, Signal::SIGKILL);
        // Killed just now: it cannot block for long, and its status says nothing new.
        drop(member.child.wait());
        self.write_down()
    }

    /// Stops some children concurrently with SIGTERM, as a roll-out does. Their ends are no errors until they are
    /// started again.
    pub fn terminate(&mut self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            self.present(name)?.is_away = true;
        }
        let mut members: Vec<&mut Member> =
            self.members.iter_mut().filter(|member| names.contains(&member.launch.name)).collect();
        stop_together(&mut members);
        self.write_down()
    }

    /// Freezes a child with SIGSTOP: the kernel accepts connections for it, and nobody answers.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        signal(&self.present(name)?.child, Signal::SIGSTOP);
        Ok(())
    }

    /// Continues a frozen child.
    pub fn thaw(&mut self, name: &str) -> anyhow::Result<()> {
        signal(&self.present(name)?.child, Signal::SIGCONT);
        Ok(())
    }

    /// Restarts a child that was killed on purpose, with the same launch.
    pub fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let run = self.run.clone();
        let member = self.member(name)?;
        ensure!(member.is_away, "{name} runs already");
        member.child = member.launch.spawn_again(&run)?;
        (member.is_away, member.ended) = (false, false);
        self.write_down()
    }

    /// Returns a child that was not killed on purpose.
    fn present(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        let member = self.member(name)?;
        ensure!(!member.is_away, "{name} was ended before");
        Ok(member)
    }

    fn member(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.launch.name == name);
        found.with_context(|| format!("{name} was never started"))
    }
}
