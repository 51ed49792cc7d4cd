//! Callers: processes of the mesh, and operators at a command line.

use stampede_vocab::{Process, Service};
use std::{fmt, str::FromStr};

/// Name of [`Caller::Operator`]. No process has it.
const OPERATOR: &str = "operator";

/// Makes a call, and signs its user and role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A process of the mesh.
    Process(Process),
    /// An operator, who has the secret of the mesh.
    Operator,
}

impl Caller {
    /// Returns the name, as in entries and in the contracts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process(process) => process.name(),
            Self::Operator => OPERATOR,
        }
    }
}

impl From<Process> for Caller {
    fn from(process: Process) -> Self {
        Self::Process(process)
    }
}

impl From<Service> for Caller {
    fn from(service: Service) -> Self {
        Self::Process(service.into())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name of no caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no process of the mesh, and not \"operator\"")]
pub struct UnknownCaller(String);

impl FromStr for Caller {
    type Err = UnknownCaller;

    fn from_str(text: &str) -> Result<Self, UnknownCaller> {
        if text == OPERATOR {
            return Ok(Self::Operator);
        }
        text.parse().map(Self::Process).map_err(|_| UnknownCaller(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caller_has_a_name_of_its_own() {
        for caller in Process::all().map(Caller::Process).chain([Caller::Operator]) {
            assert_eq!(caller.name().parse(), Ok(caller));
        }
        assert!("root".parse::<Caller>().is_err());
    }
}
