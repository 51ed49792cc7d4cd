//! Measures the resources that processes use, as the kernel counts them: processor time and memory. A noisy neighbour
//! adds latency, and hardly changes these.

use std::{collections::BTreeMap, fs, time::Duration};

/// The kernel's clock ticks a second, as user programs see them: 100 on every Linux.
const TICKS_PER_S: u64 = 100;

/// Processor time of processes by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    by_name: BTreeMap<String, Duration>,
}

impl Spent {
    /// Reads the usage of these processes so far. Processes that have ended are skipped; those of one name add up.
    pub fn now(processes: &[(String, i32)]) -> Self {
        let mut by_name = BTreeMap::new();
        for (name, pid) in processes {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            *by_name.entry(name.clone()).or_default() += processor_time(&stat).unwrap_or_default();
        }
        Self { by_name }
    }

    /// Returns the difference to an earlier reading, by name.
    pub fn since(&self, before: &Self) -> BTreeMap<String, Duration> {
        let spent = |(name, now): (&String, &Duration)| {
            let then = before.by_name.get(name).copied().unwrap_or_default();
            (name.clone(), now.saturating_sub(then))
        };
        self.by_name.iter().map(spent).collect()
    }
}

/// User and system time: the fields 14 and 15 of `/proc/PID/stat`. The name before them may have spaces in it.
fn processor_time(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(14)? + ticks(15)?) * 1_000 / TICKS_PER_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_add_up_for_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 0 0 0 0 150 25 0 0 20 0 1 0 4242 0";
        assert_eq!(processor_time(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(processor_time(""), None);
    }

    #[test]
    fn this_process_has_spent_more_later() {
        let this = [("this".to_owned(), i32::try_from(std::process::id()).expect("fits"))];
        let before = Spent::now(&this);
        let mut work = 0_u64;
        while Spent::now(&this).since(&before)["this"] == Duration::ZERO {
            work = work.wrapping_mul(31).wrapping_add(1);
        }
        assert_eq!(before.since(&before)["this"], Duration::ZERO);
    }
}
