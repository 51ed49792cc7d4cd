//! Numbers of processes by service, as given by `--replicas order=2,event=3`.

use stampede_vocab::Process;
use std::{collections::BTreeMap, str::FromStr};

/// The processes that can have replicas, in the order in which they start.
pub fn replicated() -> impl Iterator<Item = Process> {
    Process::all().filter(|process| *process != Process::Sandbox)
}

/// So many of each, in the form of `--replicas`.
pub fn of_each(count: usize) -> String {
    replicated().map(|process| format!("{process}={count}")).collect::<Vec<_>>().join(",")
}

/// More than this on one machine is a typing error.
const MAX_REPLICAS: usize = 9;

/// Counts by service; a service that is not named has one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    counts: BTreeMap<Process, usize>,
}

impl Replicas {
    /// The number of replicas of a process.
    pub fn of(&self, process: impl Into<Process>) -> usize {
        self.counts.get(&process.into()).copied().unwrap_or(1)
    }
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut counts = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (service, count) = parse_part(part)?;
            if counts.insert(service, count).is_some() {
                return Err(format!("{service} is named twice"));
            }
        }
        Ok(Self { counts })
    }
}

fn parse_part(part: &str) -> Result<(Process, usize), String> {
    let (name, count) = part.split_once('=').ok_or_else(|| format!("{part}: expected SERVICE=N"))?;
    let Some(service) = replicated().find(|process| process.name() == name) else {
        let known: Vec<&str> = replicated().map(Process::name).collect();
        return Err(format!("{name}: no such service; there are {}", known.join(", ")));
    };
    match count.parse() {
        Ok(count) if (1..=MAX_REPLICAS).contains(&count) => Ok((service, count)),
        _ => Err(format!("{part}: expected a number from 1 to {MAX_REPLICAS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Service;

    #[test]
    fn counts_are_read_and_the_rest_is_one() {
        let replicas: Replicas = "order=2, event=3".parse().expect("well formed");
        assert_eq!((replicas.of(Service::Order), replicas.of(Service::Event), replicas.of(Service::Coupon)), (2, 3, 1));
        let two: Replicas = of_each(2).parse().expect("well formed");
        assert!(replicated().all(|process| two.of(process) == 2));
        assert_eq!("".parse::<Replicas>().expect("empty is fine").of(Service::Order), 1);
    }

    #[test]
    fn invalid_counts_are_refused_by_name() {
        for (text, part) in [
            ("order", "SERVICE=N"),
            ("orders=2", "no such service"),
            ("order=0", "1 to 9"),
            ("order=many", "1 to 9"),
            ("order=1,order=2", "twice"),
        ] {
            let error = text.parse::<Replicas>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
