//! What is done to single children on purpose: they are ended, stand still, and are started again.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::{Fleet, Member, signal, stop_together};

impl Fleet {
    /// Ends a child at once, as a power cut would. It is not missed until it is started again.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.present(name)?;
        member.is_away = true;
        signal(&member.child, Signal::SIGKILL);
        // Killed just now: it cannot block for long, and its status says nothing new.
        drop(member.child.wait());
        self.write_down()
    }

    /// Ends some children side by side, as a roll-out does. They are not missed until they are started again.
    pub fn terminate(&mut self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            self.present(name)?.is_away = true;
        }
        let mut members: Vec<&mut Member> =
            self.members.iter_mut().filter(|member| names.contains(&member.launch.name)).collect();
        stop_together(&mut members);
        self.write_down()
    }

    /// Makes a child stand still: the kernel takes connections for it, and nobody answers.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        signal(&self.present(name)?.child, Signal::SIGSTOP);
        Ok(())
    }

    /// Lets a child go on that stands still.
    pub fn thaw(&mut self, name: &str) -> anyhow::Result<()> {
        signal(&self.present(name)?.child, Signal::SIGCONT);
        Ok(())
    }

    /// Starts a child again that was ended on purpose, as it was started before.
    pub fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let run = self.run.clone();
        let member = self.member(name)?;
        ensure!(member.is_away, "{name} runs already");
        member.child = member.launch.spawn_again(&run)?;
        (member.is_away, member.ended) = (false, false);
        self.write_down()
    }

    /// A child that has not been ended on purpose.
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
